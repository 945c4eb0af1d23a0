package controller

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/fluxcd/pkg/auth"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"github.com/fluxcd/pkg/cache"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/oci"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/source/verify"
)

// ociLoginError says that the credentials for a registry cannot be had.
type ociLoginError struct{ err error }

func (e *ociLoginError) Error() string { return e.err.Error() }

func (e *ociLoginError) Unwrap() error { return e.err }

// ociReason returns the reason that the toolkit's users know.
func ociReason(err error) string {
	var unverified *verify.Error
	var login *ociLoginError
	var staged *oci.Error
	switch {
	case errors.As(err, &unverified):
		return sourcev1.VerificationError
	case errors.As(err, &login):
		return sourcev1.AuthenticationFailedReason
	case !errors.As(err, &staged):
		return sourcev1.OCIPullFailedReason
	}
	switch staged.Stage {
	case oci.Addressing:
		return sourcev1.URLInvalidReason
	case oci.Choosing:
		return sourcev1.ReadOperationFailedReason
	case oci.Verifying:
		return sourcev1.VerificationError
	case oci.Reading:
		return sourcev1.OCILayerOperationFailedReason
	default:
		return sourcev1.OCIPullFailedReason
	}
}

// ociRequestOf says what to fetch for an OCIRepository, without anything that takes a Secret.
func ociRequestOf(o *sourcev1.OCIRepository) oci.Request {
	req := oci.Request{
		URL: o.Spec.URL, Ignore: o.Spec.Ignore, For: ociKey(client.ObjectKeyFromObject(o)).String(),
		Layer:  oci.Layer{MediaType: o.GetLayerMediaType(), Copy: o.GetLayerOperation() == sourcev1.OCILayerCopy},
		Access: registry.Access{Insecure: o.Spec.Insecure},
	}
	if ref := o.Spec.Reference; ref != nil {
		req.Ref = oci.Ref{Digest: ref.Digest, SemVer: ref.SemVer, SemVerFilter: ref.SemverFilter, Tag: ref.Tag}
	}
	if o.Spec.Timeout != nil {
		req.Timeout = o.Spec.Timeout.Duration
	}
	return req
}

// request is ociRequestOf with the credentials and keys that Secrets hold now, or the provider issues.
func (r *ociRepositories) request(ctx context.Context, secrets client.Reader, o *sourcev1.OCIRepository) (oci.Request, error) {
	req := ociRequestOf(o)
	if err := ociRoute(ctx, secrets, o, &req.Access); err != nil {
		return req, &ociLoginError{err}
	}
	keychain, err := r.keychain(ctx, secrets, o)
	if err == nil && keychain == nil && o.Spec.Provider != "" && o.Spec.Provider != sourcev1.GenericOCIProvider {
		bounded, cancel := registry.WithTimeout(ctx, req.Timeout)
		defer cancel()
		keychain, err = r.identity.registryLogin(bounded, o, req.Access.Proxy)
	}
	if err != nil {
		return req, &ociLoginError{err}
	}
	req.Access.Keychain = keychain
	named := strings.TrimPrefix(o.Spec.URL, registry.Prefix)
	req.Verify, err = r.signatures.check(ctx, secrets, ociKey(client.ObjectKeyFromObject(o)), named, ociSignature(o.Spec.Verify))
	return req, err
}

// ociRoute adds the certificates and the proxy.
func ociRoute(ctx context.Context, secrets client.Reader, o *sourcev1.OCIRepository, access *registry.Access) error {
	if ref := o.Spec.CertSecretRef; ref != nil && ref.Name != "" {
		data, err := readSecret(ctx, secrets, o.Namespace, ref.Name, "spec.certSecretRef")
		if err != nil {
			return err
		}
		if access.TLS, err = registry.TLSFromSecret(data); err != nil {
			return fmt.Errorf("read Secret %s/%s: %w", o.Namespace, ref.Name, err)
		}
	}
	if ref := o.Spec.ProxySecretRef; ref != nil {
		data, err := readSecret(ctx, secrets, o.Namespace, ref.Name, "spec.proxySecretRef")
		if err != nil {
			return err
		}
		if access.Proxy, err = registry.ProxyFromSecret(data); err != nil {
			return fmt.Errorf("read Secret %s/%s: %w", o.Namespace, ref.Name, err)
		}
	}
	return nil
}

// keychain holds the logins of spec.secretRef, and of the pull secrets of the service account; nil when there
// are none.
func (r *ociRepositories) keychain(ctx context.Context, secrets client.Reader, o *sourcev1.OCIRepository) (authn.Keychain, error) {
	var names, fields []string
	if ref := o.Spec.SecretRef; ref != nil {
		names, fields = append(names, ref.Name), append(fields, "spec.secretRef")
	}
	if o.Spec.ServiceAccountName != "" {
		pull, err := r.pullSecrets(ctx, o)
		if err != nil {
			return nil, err
		}
		for _, name := range pull {
			names, fields = append(names, name), append(fields, "imagePullSecrets of ServiceAccount/"+o.Namespace+"/"+o.Spec.ServiceAccountName)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	all := make([]map[string][]byte, 0, len(names))
	for i, name := range names {
		data, err := readSecret(ctx, secrets, o.Namespace, name, fields[i])
		if err != nil {
			return nil, err
		}
		if _, err := registry.KeychainFromSecrets(data); err != nil {
			return nil, fmt.Errorf("read Secret %s/%s: %w", o.Namespace, name, err)
		}
		all = append(all, data)
	}
	return registry.KeychainFromSecrets(all...)
}

// pullSecrets returns the names of the Secrets that the service account lists for pulling.
func (r *ociRepositories) pullSecrets(ctx context.Context, o *sourcev1.OCIRepository) ([]string, error) {
	object := "ServiceAccount/" + o.Namespace + "/" + o.Spec.ServiceAccountName
	if err := accountName("spec.serviceAccountName", o.Spec.ServiceAccountName); err != nil {
		return nil, err
	}
	var account corev1.ServiceAccount
	err := r.identity.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Spec.ServiceAccountName}, &account)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &failure.Error{Op: "read", Object: object, Kind: failure.NotFound, Err: err, Remedy: "create it, or correct spec.serviceAccountName"}
	case err != nil:
		return nil, &failure.Error{Op: "read", Object: object, Kind: failure.Unavailable, Err: err}
	}
	names := make([]string, 0, len(account.ImagePullSecrets))
	for _, s := range account.ImagePullSecrets {
		names = append(names, s.Name)
	}
	return names, nil
}

// registryLogin asks the cloud that spec.provider names for a login, in the name of a service account of the
// namespace or, where that is allowed, of the engine itself.
func (i GitIdentity) registryLogin(ctx context.Context, o *sourcev1.OCIRepository, proxy *url.URL) (authn.Keychain, error) {
	options := []auth.Option{auth.WithClient(i.Client)}
	who := "the engine's own identity"
	if account := i.accountFor(o.Namespace, o.Spec.ServiceAccountName); account != "" {
		who = "ServiceAccount/" + o.Namespace + "/" + account
		options = append(options, auth.WithServiceAccountNamespace(o.Namespace), auth.WithServiceAccountName(account))
	}
	if proxy != nil {
		options = append(options, auth.WithProxyURL(*proxy))
	}
	if i.Tokens != nil {
		options = append(options, auth.WithCache(*i.Tokens, cache.InvolvedObject{
			Kind: sourcev1.OCIRepositoryKind, Name: o.Name, Namespace: o.Namespace, Operation: cache.OperationReconcile,
		}))
	}
	found, err := authutils.GetArtifactRegistryCredentials(ctx, o.Spec.Provider, strings.TrimPrefix(o.Spec.URL, registry.Prefix), options...)
	if err != nil {
		return nil, refusedIdentity(ctx, who+" at "+o.Spec.Provider, err, "check spec.provider, the identity and its rights")
	}
	config, err := authn.Authorization(ctx, found)
	if err != nil {
		return nil, refusedIdentity(ctx, who+" at "+o.Spec.Provider, err, "check spec.url, the identity and its rights")
	}
	return registry.Login(authn.FromConfig(*config)), nil
}
