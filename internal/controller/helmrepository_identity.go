package controller

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/auth"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"github.com/fluxcd/pkg/cache"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// login asks the cloud that spec.provider names for a login at its registry; nil where it names none. As a
// HelmRepository has no field for a service account, it is asked in the name of the engine, or of the
// account of the namespace where that is confined.
func (r *helmCharts) login(ctx context.Context, repo *sourcev1.HelmRepository) (authn.Keychain, error) {
	provider := repo.Spec.Provider
	if provider == "" || provider == sourcev1.GenericOCIProvider {
		return nil, nil
	}
	options := []auth.Option{auth.WithClient(r.identity.Client)}
	who := "the engine's own identity"
	account := r.identity.Tenancy.DefaultServiceAccount
	if account == "" && r.identity.Tenancy.Confined(repo.Namespace) {
		account = confinedAccount
	}
	if account != "" {
		who = "ServiceAccount/" + repo.Namespace + "/" + account
		options = append(options, auth.WithServiceAccountNamespace(repo.Namespace), auth.WithServiceAccountName(account))
	}
	if r.identity.Tokens != nil {
		options = append(options, auth.WithCache(*r.identity.Tokens, cache.InvolvedObject{
			Kind: sourcev1.HelmRepositoryKind, Name: repo.Name, Namespace: repo.Namespace, Operation: cache.OperationReconcile,
		}))
	}
	host := strings.TrimPrefix(normalURL(repo.Spec.URL), registry.Prefix)
	found, err := authutils.GetArtifactRegistryCredentials(ctx, provider, host, options...)
	if err == nil && found != nil {
		_, err = authn.Authorization(ctx, found) // it is asked for only then
	}
	if err != nil {
		return nil, refusedIdentity(ctx, who+" at "+provider, err, "check spec.url, the identity and its rights")
	}
	if found == nil {
		return nil, &failure.Error{Op: "use provider", Object: provider, Kind: failure.Invalid, Err: fmt.Errorf("it has no login for %s", host), Remedy: "set spec.provider to generic"}
	}
	return registry.Login(found), nil
}
