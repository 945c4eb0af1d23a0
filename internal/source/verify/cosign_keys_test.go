package verify_test

import (
	"errors"
	"testing"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

var formats = []signtest.CosignFormat{signtest.CosignBundle, signtest.CosignTag, signtest.CosignReferring}

func trustKeys(t testing.TB, secret map[string][]byte) verify.Trust {
	t.Helper()
	trust, err := verify.CosignKeys("Secret/apps/keys", secret)
	must(t, err)
	return trust
}

// Both formats of cosign, however the registry keeps them, hold for the right key and for nothing else.
func TestCosignKeys(t *testing.T) {
	t.Parallel()
	alice, bob := signtest.NewCosignKey(t, 0), signtest.NewCosignKey(t, 0)
	one := map[string][]byte{"alice.pub": alice.Public, "README": []byte("no key")}
	both := map[string][]byte{"a.pub": bob.Public, "z.pub": alice.Public}
	rows := []struct {
		name, reason string
		sign         func(*testing.T, ocitest.Artifact, signtest.CosignFormat)
		keys         map[string][]byte
		cause        verify.Cause
		words        []string
	}{
		{"right key", "it is signed with the key that is trusted", func(t *testing.T, a ocitest.Artifact, f signtest.CosignFormat) { alice.Sign(t, a, f) },
			one, "", []string{"key 'alice.pub' of Secret/apps/keys"}},
		{"several keys", "one of them is enough", func(t *testing.T, a ocitest.Artifact, f signtest.CosignFormat) { alice.Sign(t, a, f) },
			both, "", []string{"key 'z.pub'"}},
		{"none", "nobody signed it", func(*testing.T, ocitest.Artifact, signtest.CosignFormat) {},
			one, verify.Unsigned, []string{"no signature of cosign"}},
		{"wrong key", "somebody else signed it", func(t *testing.T, a ocitest.Artifact, f signtest.CosignFormat) { bob.Sign(t, a, f) },
			one, verify.Mistrusted, []string{"Secret/apps/keys"}},
		{"tampered", "what was signed is not what is there", func(t *testing.T, a ocitest.Artifact, f signtest.CosignFormat) { alice.SignTampered(t, a, f) },
			one, verify.Mistrusted, nil},
		{"replayed", "a good signature of another artifact was put beside this one", func(t *testing.T, a ocitest.Artifact, f signtest.CosignFormat) {
			alice.SignAs(t, a, f, otherDigest)
		}, one, verify.OtherDigest, []string{"another artifact"}},
	}
	for _, referrers := range []bool{true, false} {
		s := newShelf(t, referrers)
		for _, format := range formats {
			for _, row := range rows {
				t.Run(row.name+" "+string(format), func(t *testing.T) {
					a := s.artifact()
					row.sign(t, a, format)
					got, err := newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, row.keys)))
					expect(t, got, err, row.cause, row.words...)
					if row.cause != "" && failure.KindOf(errors.Unwrap(err)) == failure.Unavailable {
						t.Errorf("the registry is blamed: %v", err)
					}
				})
			}
		}
	}
}

// Of many signatures one good one is enough, in whatever format.
func TestCosignManySignatures(t *testing.T) {
	t.Parallel()
	alice, bob := signtest.NewCosignKey(t, 0), signtest.NewCosignKey(t, 0)
	for _, referrers := range []bool{true, false} {
		s := newShelf(t, referrers)
		a := s.artifact()
		bob.Sign(t, a, signtest.CosignBundle)
		bob.SignAs(t, a, signtest.CosignReferring, otherDigest)
		alice.Sign(t, a, signtest.CosignTag)
		got, err := newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, map[string][]byte{"alice.pub": alice.Public})))
		expect(t, got, err, "", "alice.pub")
	}
}

// A statement about an artifact vouches for it, as it does for cosign.
func TestCosignStatement(t *testing.T) {
	t.Parallel()
	s, alice := newShelf(t, true), signtest.NewCosignKey(t, 0)
	a := s.artifact()
	alice.State(t, a, "https://slsa.dev/provenance/v1", a.Digest.String())
	got, err := newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, map[string][]byte{"alice.pub": alice.Public})))
	expect(t, got, err, "", "alice.pub")
}

// All kinds of keys that cosign makes or takes are good.
func TestCosignKeyKinds(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	for _, kind := range []protocommon.PublicKeyDetails{
		protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
		protocommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384,
		protocommon.PublicKeyDetails_PKIX_ECDSA_P521_SHA_512,
		protocommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_256, //nolint:staticcheck // this is how cosign signed once
		protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256,
		protocommon.PublicKeyDetails_PKIX_ED25519,
	} {
		for _, format := range []signtest.CosignFormat{signtest.CosignBundle, signtest.CosignTag} {
			t.Run(kind.String()+" "+string(format), func(t *testing.T) {
				key, a := signtest.NewCosignKey(t, kind), s.artifact()
				key.Sign(t, a, format)
				got, err := newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, map[string][]byte{"k.pub": key.Public})))
				expect(t, got, err, "", "k.pub")
			})
		}
	}
}

// A Secret that is no use says which of its entries is to blame, and nothing of what is in it.
func TestCosignBadKeys(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		secret       map[string][]byte
		word         string
	}{
		{"empty", "there is nothing to trust", nil, "no key"},
		{"other names", "a key is known by its name", map[string][]byte{"key.pem": signtest.NewCosignKey(t, 0).Public}, ".pub"},
		{"no key", "one broken key must not be passed over", map[string][]byte{"a.pub": signtest.NewCosignKey(t, 0).Public, "b.pub": []byte("hunter2")}, "b.pub"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := verify.CosignKeys("Secret/apps/keys", row.secret)
			expect(t, verify.Result{}, err, verify.Unusable, "Secret/apps/keys", row.word)
			if failure.KindOf(err) != failure.Invalid {
				t.Errorf("kind %s: it would be tried again", failure.KindOf(err))
			}
			if got := err.Error(); len(got) == 0 || containsSecret(got) {
				t.Errorf("%q tells what is in the Secret", got)
			}
		})
	}
}
