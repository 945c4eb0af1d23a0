package controller

import (
	"context"
	"errors"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Decryption gives units what their builds need to decrypt.
type Decryption struct {
	// Ring remembers what key services answered.
	Ring *sops.Ring
}

// Prepare puts into the recipe what spec.decryption of k asks for. secrets reads the
// Secret that holds the keys. wake is called when a key service answered that a build
// did not wait for; it may be nil.
func (d *Decryption) Prepare(ctx context.Context, k *kustomizev1.Kustomization, secrets client.Reader, recipe *build.Recipe, wake func()) error {
	spec := k.Spec.Decryption
	if spec == nil {
		return nil
	}
	if spec.Provider != sops.Provider {
		return &failure.Error{Op: "decrypt", Kind: failure.Invalid, Object: fmt.Sprintf("spec.decryption.provider %q", spec.Provider),
			Err: errors.New("there is no such provider"), Remedy: `set it to "sops"`}
	}
	from, identity := "spec.decryption without secretRef", []string{"workload"}
	var data map[string][]byte
	if spec.SecretRef != nil {
		secret, err := keySecret(ctx, secrets, types.NamespacedName{Namespace: k.Namespace, Name: spec.SecretRef.Name})
		if err != nil {
			return err
		}
		from, data = fmt.Sprintf("Secret/%s/%s", k.Namespace, spec.SecretRef.Name), secret.Data
		identity = []string{"secret", spec.SecretRef.Name, secret.ResourceVersion}
	}
	id := sops.Identity(append(identity, k.Namespace, spec.ServiceAccountName)...)
	keys, err := d.Ring.Open(from, id, data, sops.Cloud{})
	if err != nil {
		return err
	}
	recipe.Decryption, recipe.DecryptionKeys = d.Ring.Decrypter(keys, wake), id
	return nil
}

// keySecret reads a Secret that spec.decryption names.
func keySecret(ctx context.Context, secrets client.Reader, name types.NamespacedName) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := secrets.Get(ctx, name, secret)
	if err == nil {
		return secret, nil
	}
	f := &failure.Error{Op: "read", Kind: failure.Unavailable, Object: fmt.Sprintf("Secret/%s (spec.decryption.secretRef)", name), Err: err}
	switch {
	case apierrors.IsNotFound(err):
		f.Kind, f.Err, f.Remedy = failure.NotFound, errors.New("there is no such Secret"), "create it, or correct the name"
	case apierrors.IsForbidden(err):
		f.Kind, f.Remedy = failure.Denied, "let the engine read it"
	}
	return nil, f
}

// wakeDecrypted brings a unit back whose build waits for a key service.
func (r *kustomizations) wakeDecrypted(unit types.NamespacedName) {
	r.attempts.drift(unit) // it need not wait for its next attempt
	r.self.add(unit, soon)
}
