package controller

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"

	"github.com/fluxcd/pkg/auth"
	"github.com/fluxcd/pkg/auth/githubapp"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"github.com/fluxcd/pkg/cache"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// GitIdentity is who asks for GitRepositories whose provider issues credentials that
// last a while: GitHub Apps, and the identities of workloads in clouds.
type GitIdentity struct {
	// Client reads service accounts and asks for their tokens. It must not read from
	// a cache. Nil where there is none; then spec.serviceAccountName cannot be heeded.
	Client client.Client
	// Tokens keeps what was issued until most of its time is over; nil keeps nothing.
	Tokens *cache.TokenCache
	// Tenancy says in whose name the repositories of a namespace are asked for.
	Tenancy Tenancy
}

// maxGitTokens bounds the tokens that are kept.
const maxGitTokens = 1000

func newGitIdentity(c client.Client, tenancy Tenancy) GitIdentity {
	accountIdentities()
	tokens, err := cache.NewTokenCache(maxGitTokens)
	if err != nil {
		tokens = nil // every fetch asks for its own, then
	}
	return GitIdentity{Client: c, Tokens: tokens, Tenancy: tenancy}
}

// providerError says that the provider and the Secret of a GitRepository do not go together.
type providerError struct{ err error }

func (e *providerError) Error() string { return e.err.Error() }

func (e *providerError) Unwrap() error { return e.err }

func badProvider(g *sourcev1.GitRepository, why, remedy string) error {
	return &providerError{&failure.Error{
		Op: "use provider", Object: g.GetProvider(), Kind: failure.Invalid, Err: errors.New(why), Remedy: remedy,
	}}
}

// accountIdentities turns on the library's switch for service accounts, which is one of the
// whole process. It is called before anything runs.
var accountIdentities = sync.OnceFunc(auth.EnableObjectLevelWorkloadIdentity)

// authenticate adds the credentials that the provider issues to a request, which has those of
// the Secret.
func (i GitIdentity) authenticate(ctx context.Context, g *sourcev1.GitRepository, secret map[string][]byte, req *git.Request) error {
	provider := g.GetProvider()
	if provider == sourcev1.GitProviderGeneric {
		if len(secret[githubapp.KeyAppID]) > 0 {
			return badProvider(g, "the Secret that spec.secretRef names is that of a GitHub App", "set spec.provider to github")
		}
		return nil
	}
	if u, err := url.Parse(g.Spec.URL); err == nil && u.Scheme == "ssh" {
		return badProvider(g, "it issues no keys for SSH", "use the https URL of the repository")
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(req.Timeout, git.DefaultTimeout))
	defer cancel()
	var credentials *auth.GitCredentials
	var err error
	if provider == sourcev1.GitProviderGitHub {
		credentials, err = i.gitHubApp(ctx, g, secret, req)
	} else {
		credentials, err = i.cloud(ctx, g, req)
	}
	if err != nil {
		return err
	}
	req.Auth.BearerToken, req.Auth.Username, req.Auth.Password = credentials.BearerToken, credentials.Username, credentials.Password
	return nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (i GitIdentity) gitHubApp(ctx context.Context, g *sourcev1.GitRepository, secret map[string][]byte, req *git.Request) (*auth.GitCredentials, error) {
	if err := checkGitHubApp(g, secret); err != nil {
		return nil, err
	}
	options := []githubapp.OptFunc{githubapp.WithAppData(secret)}
	proxy, err := req.Proxy.URL()
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		options = append(options, githubapp.WithProxyURL(proxy))
	}
	if tls, err := req.Auth.TLS(); err != nil {
		return nil, err
	} else if tls != nil {
		options = append(options, githubapp.WithTLSConfig(tls))
	}
	if i.Tokens != nil {
		options = append(options, githubapp.WithCache(i.Tokens, sourcev1.GitRepositoryKind, g.Name, g.Namespace, cache.OperationReconcile))
	}
	user, password, err := githubapp.GetCredentials(ctx, options...)
	if err != nil {
		return nil, refusedIdentity(ctx, "the GitHub App "+string(secret[githubapp.KeyAppID]), err,
			"check the app's ID, its installation, its private key and githubAppBaseURL in the Secret that spec.secretRef names")
	}
	return &auth.GitCredentials{Username: user, Password: password}, nil
}

// checkGitHubApp finds what is missing in the Secret of a GitHub App, or cannot be.
func checkGitHubApp(g *sourcev1.GitRepository, secret map[string][]byte) error {
	remedy := "put the app's data into the Secret that spec.secretRef names"
	for _, key := range []string{githubapp.KeyAppID, githubapp.KeyAppPrivateKey} {
		if len(secret[key]) == 0 {
			return badProvider(g, "there is no "+key, remedy)
		}
	}
	owner, id := secret[githubapp.KeyAppInstallationOwner], secret[githubapp.KeyAppInstallationID]
	if len(owner) == 0 == (len(id) == 0) {
		return badProvider(g, fmt.Sprintf("one of %s and %s is needed, and not both", githubapp.KeyAppInstallationOwner, githubapp.KeyAppInstallationID), remedy)
	}
	for _, key := range []string{githubapp.KeyAppID, githubapp.KeyAppInstallationID} {
		if text := secret[key]; len(text) > 0 {
			if _, err := strconv.ParseInt(string(text), 10, 64); err != nil {
				return badProvider(g, key+" is no number", remedy)
			}
		}
	}
	return nil
}

// cloud asks a cloud, in the name of a service account of the namespace or, where that is
// allowed, of the engine itself.
func (i GitIdentity) cloud(ctx context.Context, g *sourcev1.GitRepository, req *git.Request) (*auth.GitCredentials, error) {
	u, err := url.Parse(g.Spec.URL)
	if err != nil {
		return nil, badProvider(g, "spec.url cannot be read", "correct it")
	}
	options := []auth.Option{auth.WithGitURL(*u), auth.WithClient(i.Client)}
	account := i.account(g)
	if account != "" {
		if i.Client == nil {
			return nil, badProvider(g, "service accounts cannot be asked for here", "use the engine")
		}
		options = append(options, auth.WithServiceAccountNamespace(g.Namespace), auth.WithServiceAccountName(account))
	}
	proxy, err := req.Proxy.URL()
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		options = append(options, auth.WithProxyURL(*proxy))
	}
	if i.Tokens != nil {
		options = append(options, auth.WithCache(*i.Tokens, cache.InvolvedObject{
			Kind: sourcev1.GitRepositoryKind, Name: g.Name, Namespace: g.Namespace, Operation: cache.OperationReconcile,
		}))
	}
	credentials, err := authutils.GetGitCredentials(ctx, g.GetProvider(), options...)
	if err != nil {
		who := "the engine's own identity"
		if account != "" {
			who = "ServiceAccount/" + g.Namespace + "/" + account
		}
		return nil, refusedIdentity(ctx, who+" at "+g.GetProvider(), err, "check spec.url, the identity and its rights")
	}
	return credentials, nil
}

// account is the service account in whose name a cloud is asked, and "" for the engine's own identity,
// which a confined repository never gets: it could read what is not its own.
func (i GitIdentity) account(g *sourcev1.GitRepository) string {
	return i.accountFor(g.Namespace, g.Spec.ServiceAccountName)
}

// accountFor is account for a source of any kind, and the account that it names.
func (i GitIdentity) accountFor(namespace, named string) string {
	switch {
	case named != "":
		return named
	case i.Tenancy.DefaultServiceAccount != "":
		return i.Tenancy.DefaultServiceAccount
	case i.Tenancy.Confined(namespace):
		return confinedAccount
	default:
		return ""
	}
}

func refusedIdentity(ctx context.Context, who string, err error, remedy string) error {
	f := &failure.Error{Op: "get credentials for", Object: who, Kind: failure.Denied, Err: err, Remedy: remedy}
	var transport *url.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		f.Kind = failure.Timeout
	case errors.As(err, &transport):
		f.Kind = failure.Unavailable
	}
	return f
}
