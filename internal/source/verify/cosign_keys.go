package verify

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// keySuffix is how the names of public keys in a Secret end.
const keySuffix = ".pub"

// keys trusts public keys.
type keys struct {
	object string // the Secret that they are from
	id     string
	keys   []key
}

type key struct {
	name     string
	verifier *verify.Verifier
}

// CosignKeys trusts the public keys of a Secret: PEM, each under a name that ends in .pub. Object names the
// Secret in messages, such as "Secret/apps/keys".
func CosignKeys(object string, secret map[string][]byte) (Trust, error) {
	t := &keys{object: object}
	sum := sha256.New()
	for _, n := range names(secret, keySuffix) {
		public, err := cryptoutils.UnmarshalPEMToPublicKey(secret[n])
		if err != nil {
			// The cause is left out: it may quote what was mistaken for a key.
			return nil, refuse(Unusable, object+", "+n, errors.New("this is no public key in PEM"), "put there what `cosign public-key` prints")
		}
		for _, hash := range hashesOf(public) {
			v, err := keyVerifier(public, hash)
			if err != nil {
				return nil, refuse(Unusable, object+", "+n, fmt.Errorf("the key cannot be used: %w", err), "use an ECDSA, RSA or Ed25519 key")
			}
			t.keys = append(t.keys, key{n, v})
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", n, len(secret[n]), secret[n]) // a hash takes all
	}
	if len(t.keys) == 0 {
		return nil, refuse(Unusable, object, errors.New("it holds no key: no name ends in "+keySuffix), "add the public keys that are trusted")
	}
	t.id = "cosign-keys " + hex.EncodeToString(sum.Sum(nil))
	return t, nil
}

// hashesOf says with which hashes a key signs. Cosign signed with SHA-256 whatever the curve, and now goes by the curve.
func hashesOf(public crypto.PublicKey) []crypto.Hash {
	if e, ok := public.(*ecdsa.PublicKey); ok {
		switch e.Curve {
		case elliptic.P384():
			return []crypto.Hash{crypto.SHA256, crypto.SHA384}
		case elliptic.P521():
			return []crypto.Hash{crypto.SHA256, crypto.SHA512}
		}
	}
	return []crypto.Hash{crypto.SHA256}
}

func keyVerifier(public crypto.PublicKey, hash crypto.Hash) (*verify.Verifier, error) {
	loaded, err := signature.LoadVerifier(public, hash)
	if err != nil {
		return nil, err
	}
	always := root.NewExpiringKey(loaded, time.Time{}, time.Time{})
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return always, nil })
	return verify.NewVerifier(material, verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate())
}

// ID implements Trust.
func (t *keys) ID() string { return t.id }

func (t *keys) verify(ctx context.Context, of artifact, _ *Verifier) (Result, error) {
	return cosign(ctx, of, true, func(p proof) (Result, *Error) { return t.check(of, p) })
}

func (t *keys) check(of artifact, p proof) (Result, *Error) {
	for _, k := range t.keys {
		if _, err := holds(of, p, k.verifier, verify.WithKey()); err == nil {
			if err := about(of, p); err != nil {
				return Result{}, err
			}
			return Result{Verified: true, By: "key '" + k.name + "' of " + t.object}, nil
		}
		if _, err := k.verifier.Verify(p, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey())); err == nil && p.payload == nil {
			return Result{}, otherDigest(of)
		}
	}
	return Result{}, refuse(Mistrusted, of.String(), errors.New("no signature beside it is by a key of "+t.object), "sign it with one of these keys, or add the key of its signer")
}
