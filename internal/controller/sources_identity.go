package controller

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"

	"github.com/fluxcd/pkg/auth"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"github.com/fluxcd/pkg/cache"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/authn"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// SourceIdentity is who asks for sources whose provider issues credentials that
// last a while: GitHub Apps, and the identities of workloads in clouds.
type SourceIdentity struct {
	// Client reads service accounts and asks for their tokens. It must not read from
	// a cache. Nil where there is none; then spec.serviceAccountName cannot be heeded.
	Client client.Client
	// Tokens keeps what was issued until most of its time is over; nil keeps nothing.
	Tokens *cache.TokenCache
	// Tenancy says in whose name the sources of a namespace are asked for.
	Tenancy Tenancy
}

// maxSourceTokens bounds the tokens that are kept.
const maxSourceTokens = 1000

func newSourceIdentity(c client.Client, tenancy Tenancy) SourceIdentity {
	accountIdentities()
	tokens, err := cache.NewTokenCache(maxSourceTokens)
	if err != nil {
		tokens = nil // every fetch asks for its own, then
	}
	return SourceIdentity{Client: c, Tokens: tokens, Tenancy: tenancy}
}

// accountIdentities turns on the library's switch for service accounts, which is one of the
// whole process. It is called before anything runs.
var accountIdentities = sync.OnceFunc(auth.EnableObjectLevelWorkloadIdentity)

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// accountFor is the service account in whose name a cloud is asked for a source which names this one, and "" for the
// engine's own identity, which a confined source never gets: it could read what is not its own.
func (i SourceIdentity) accountFor(namespace, named string) string {
	switch {
	case named != "":
		return named
	case i.Tenancy.DefaultServiceAccount != "":
		return i.Tenancy.DefaultServiceAccount
	case !i.Tenancy.ownIdentity(namespace):
		return confinedAccount
	default:
		return ""
	}
}

// options says to a cloud for which source, in whose name and through which proxy it is asked; who is that name
// for messages.
func (i SourceIdentity) options(of sourceKey, account string, proxy *url.URL) (options []auth.Option, who string) {
	options, who = []auth.Option{auth.WithClient(i.Client)}, "the engine's own identity"
	if account != "" {
		who = "ServiceAccount/" + of.Namespace + "/" + account
		options = append(options, auth.WithServiceAccountNamespace(of.Namespace), auth.WithServiceAccountName(account))
	}
	if proxy != nil {
		options = append(options, auth.WithProxyURL(*proxy))
	}
	if i.Tokens != nil {
		options = append(options, auth.WithCache(*i.Tokens, cache.InvolvedObject{
			Kind: of.Kind, Name: of.Name, Namespace: of.Namespace, Operation: cache.OperationReconcile,
		}))
	}
	return options, who
}

// registryLogin asks the cloud that spec.provider names for a login at a registry; nil where it names none. The account
// is the one that the source names.
func (i SourceIdentity) registryLogin(ctx context.Context, of sourceKey, account, provider, address string, proxy *url.URL) (authn.Keychain, error) {
	if provider == "" || provider == sourcev1.GenericOCIProvider {
		return nil, nil
	}
	options, who := i.options(of, i.accountFor(of.Namespace, account), proxy)
	found, err := authutils.GetArtifactRegistryCredentials(ctx, provider, strings.TrimPrefix(address, registry.Prefix), options...)
	var config *authn.AuthConfig
	if err == nil {
		config, err = authn.Authorization(ctx, found) // it is asked for only then
	}
	if err != nil {
		return nil, refusedIdentity(ctx, who+" at "+provider, err, "check spec.provider, spec.url, the identity and its rights")
	}
	return registry.Login(authn.FromConfig(*config)), nil
}

// loginError says that there is nothing to show a server, because a Secret is missing or
// wrong, or nobody issues credentials.
type loginError struct{ err error }

func (e *loginError) Error() string { return e.err.Error() }

func (e *loginError) Unwrap() error { return e.err }

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
