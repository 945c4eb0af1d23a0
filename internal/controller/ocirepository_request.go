package controller

import (
	"context"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/oci"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// ociRequestOf says what to fetch for an OCIRepository, without anything that takes a Secret.
func ociRequestOf(o *sourcev1.OCIRepository) oci.Request {
	req := oci.Request{
		URL: o.Spec.URL, Ignore: o.Spec.Ignore, For: ociKey(o).String(),
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
	read := secretsIn(ctx, secrets, o.Namespace)
	if err := ociRoute(read, o, &req.Access); err != nil {
		return req, &loginError{err}
	}
	keychain, err := r.keychain(ctx, read, o)
	if err == nil && keychain == nil {
		bounded, cancel := registry.WithTimeout(ctx, req.Timeout)
		defer cancel()
		keychain, err = r.identity.registryLogin(bounded, ociKey(o), o.Spec.ServiceAccountName, o.Spec.Provider, o.Spec.URL, req.Access.Proxy)
	}
	if err != nil {
		return req, &loginError{err}
	}
	req.Access.Keychain = keychain
	named := strings.TrimPrefix(o.Spec.URL, registry.Prefix)
	req.Verify, err = r.signatures.check(ctx, secrets, ociKey(o), named, ociSignature(o.Spec.Verify))
	return req, err
}

// ociRoute adds the certificates and the proxy.
func ociRoute(read secretReader, o *sourcev1.OCIRepository, access *registry.Access) error {
	certs := o.Spec.CertSecretRef
	if certs != nil && certs.Name == "" {
		certs = nil
	}
	err := read(certs, "spec.certSecretRef", func(data map[string][]byte) (err error) {
		access.TLS, err = reach.TLSFromSecret("spec.certSecretRef", data)
		return err
	})
	if err != nil {
		return err
	}
	return read(o.Spec.ProxySecretRef, "spec.proxySecretRef", func(data map[string][]byte) (err error) {
		access.Proxy, err = reach.ProxyFromSecret(data)
		return err
	})
}

// keychain holds the logins of spec.secretRef, and of the pull secrets of the service account; nil when there
// are none.
func (r *ociRepositories) keychain(ctx context.Context, read secretReader, o *sourcev1.OCIRepository) (authn.Keychain, error) {
	var all []map[string][]byte
	take := func(data map[string][]byte) error {
		all = append(all, data)
		_, err := registry.KeychainFromSecrets(data)
		return err
	}
	if err := read(o.Spec.SecretRef, "spec.secretRef", take); err != nil {
		return nil, err
	}
	if o.Spec.ServiceAccountName != "" {
		pull, err := r.pullSecrets(ctx, o)
		if err != nil {
			return nil, err
		}
		for _, ref := range pull {
			if err := read(&meta.LocalObjectReference{Name: ref.Name}, "imagePullSecrets of ServiceAccount/"+o.Namespace+"/"+o.Spec.ServiceAccountName, take); err != nil {
				return nil, err
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return registry.KeychainFromSecrets(all...)
}

// pullSecrets returns the Secrets that the service account lists for pulling.
func (r *ociRepositories) pullSecrets(ctx context.Context, o *sourcev1.OCIRepository) ([]corev1.LocalObjectReference, error) {
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
	return account.ImagePullSecrets, nil
}
