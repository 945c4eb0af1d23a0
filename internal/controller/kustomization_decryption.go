package controller

import (
	"context"
	"errors"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/cache"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Decryption gives units what their builds need to decrypt.
type Decryption struct {
	// Ring remembers what key services answered.
	Ring *sops.Ring
	// Tenancy says who may use the engine's own identity and keys.
	Tenancy Tenancy
	// DefaultServiceAccount is the account, of the namespace of each unit, that asks
	// the key services of clouds where spec.decryption names none; empty means the
	// engine's own identity, or that of the account "default" for a confined unit.
	DefaultServiceAccount string
	// AgeSecret holds age keys for units whose spec.decryption names no Secret; empty
	// means none. Confined units do not get them.
	AgeSecret types.NamespacedName
	// VaultConfig is the ConfigMap that lists the Vault and OpenBao servers at which
	// service accounts may log in, and where; empty means none.
	VaultConfig types.NamespacedName

	// context bounds what is asked on behalf of nobody in particular.
	context context.Context //nolint:containedctx // the engine's: credentials are asked for long after Prepare
	// client asks for tokens of service accounts; nil means that clouds are not asked.
	client client.Client
	tokens *cache.TokenCache
}

// NewDecryption returns what decrypts with the workload identities that c can ask
// tokens for, until ctx is done.
func NewDecryption(ctx context.Context, c client.Client, o sops.Options) *Decryption {
	d := &Decryption{Ring: sops.NewRing(ctx, o), context: ctx, client: c}
	accountIdentities()
	// The only error is a size below one.
	d.tokens, _ = cache.NewTokenCache(maxTokens)
	return d
}

// decryptionOf is the decryption of an engine.
func decryptionOf(ctx context.Context, mgr ctrl.Manager, o Options) *Decryption {
	d := NewDecryption(ctx, uncached{mgr.GetClient(), mgr.GetAPIReader()}, o.keyServices)
	d.Tenancy, d.DefaultServiceAccount, d.AgeSecret, d.VaultConfig = o.Tenancy, o.DefaultDecryptionAccount, o.AgeSecret, o.VaultConfig
	return d
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
	from, version, data, err := d.keys(ctx, k, secrets)
	if err != nil {
		return err
	}
	cloud := d.cloud(k) //nolint:contextcheck // what it asks outlives the reconcile
	id := sops.Identity(k.Namespace, from, version, d.account(k), fmt.Sprint(spec.SecretRef == nil), fmt.Sprint(cloud.OwnIdentity))
	keys, err := d.Ring.Open(from, id, data, cloud) //nolint:contextcheck // what it asks outlives the reconcile
	if err != nil {
		return err
	}
	recipe.Decryption, recipe.DecryptionKeys = d.Ring.Decrypter(keys, wake), id
	return nil
}

// keys reads the Secret that holds the keys of a unit, if there is one.
func (d *Decryption) keys(ctx context.Context, k *kustomizev1.Kustomization, secrets client.Reader) (from, version string, data map[string][]byte, err error) {
	name, field := d.AgeSecret, "--sops-age-secret"
	switch {
	case k.Spec.Decryption.SecretRef != nil:
		name, field = types.NamespacedName{Namespace: k.Namespace, Name: k.Spec.Decryption.SecretRef.Name}, "spec.decryption.secretRef"
	case name.Name == "" || d.Tenancy.Confined(k.Namespace):
		return "spec.decryption without secretRef", "", nil, nil
	}
	secret, err := keySecret(ctx, secrets, name, field)
	if err != nil {
		return "", "", nil, err
	}
	if data = secret.Data; k.Spec.Decryption.SecretRef == nil {
		data = sops.OnlyAge(data)
	}
	return "Secret/" + name.String(), secret.ResourceVersion, data, nil
}

// keySecret reads a Secret that spec.decryption names.
func keySecret(ctx context.Context, secrets client.Reader, name types.NamespacedName, field string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := secrets.Get(ctx, name, secret)
	if err == nil {
		return secret, nil
	}
	f := &failure.Error{Op: "read", Kind: failure.Unavailable, Object: fmt.Sprintf("Secret/%s (%s)", name, field), Err: err}
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
	r.self.AddAt(unit, soon)
}
