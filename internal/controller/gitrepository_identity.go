package controller

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/fluxcd/pkg/auth"
	"github.com/fluxcd/pkg/auth/githubapp"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"github.com/fluxcd/pkg/cache"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// providerError says that the provider and the Secret of a GitRepository do not go together.
type providerError struct{ err error }

func (e *providerError) Error() string { return e.err.Error() }

func (e *providerError) Unwrap() error { return e.err }

func badProvider(g *sourcev1.GitRepository, why, remedy string) error {
	return &providerError{&failure.Error{
		Op: "use provider", Object: g.GetProvider(), Kind: failure.Invalid, Err: errors.New(why), Remedy: remedy,
	}}
}

// authenticate adds the credentials that the provider issues to a request, which has those of
// the Secret.
func (i SourceIdentity) authenticate(ctx context.Context, g *sourcev1.GitRepository, secret map[string][]byte, req *git.Request) error {
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

func (i SourceIdentity) gitHubApp(ctx context.Context, g *sourcev1.GitRepository, secret map[string][]byte, req *git.Request) (*auth.GitCredentials, error) {
	if err := checkGitHubApp(g, secret); err != nil {
		return nil, err
	}
	options := []githubapp.OptFunc{githubapp.WithAppData(secret)}
	if req.Proxy != nil {
		options = append(options, githubapp.WithProxyURL(req.Proxy))
	}
	if !req.Auth.TLS.Empty() {
		settings, err := req.Auth.TLS.Config("spec.secretRef")
		if err != nil {
			return nil, err
		}
		options = append(options, githubapp.WithTLSConfig(settings))
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
func (i SourceIdentity) cloud(ctx context.Context, g *sourcev1.GitRepository, req *git.Request) (*auth.GitCredentials, error) {
	u, err := url.Parse(g.Spec.URL)
	if err != nil {
		return nil, badProvider(g, "spec.url cannot be read", "correct it")
	}
	account := i.accountFor(g.Namespace, g.Spec.ServiceAccountName)
	if account != "" && i.Client == nil {
		return nil, badProvider(g, "service accounts cannot be asked for here", "use the engine")
	}
	options, who := i.options(repositoryKey(g.Namespace, g.Name), account, req.Proxy)
	credentials, err := authutils.GetGitCredentials(ctx, g.GetProvider(), append(options, auth.WithGitURL(*u))...)
	if err != nil {
		return nil, refusedIdentity(ctx, who+" at "+g.GetProvider(), err, "check spec.url, the identity and its rights")
	}
	return credentials, nil
}
