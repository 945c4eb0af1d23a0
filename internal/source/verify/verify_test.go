package verify_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

// What was verified costs no request until the artifact or what is trusted changes, and nobody gets another's verdict.
func TestVerdictsAreKept(t *testing.T) {
	t.Parallel()
	s, alice, bob := newShelf(t, true), signtest.NewCosignKey(t, 0), signtest.NewCosignKey(t, 0)
	a, v := s.artifact(), newVerifier()
	alice.Sign(t, a, signtest.CosignBundle)
	one := map[string][]byte{"alice.pub": alice.Public}
	ask := func(owner string, a ocitest.Artifact, keys map[string][]byte) (int64, error) {
		t.Helper()
		before := s.asked.Load()
		_, err := v.Verify(t.Context(), owner, request(a, trustKeys(t, keys)))
		return s.asked.Load() - before, err
	}
	for _, step := range []struct {
		reason string
		ask    func() (int64, error)
		free   bool
		good   bool
	}{
		{"nobody asked before", func() (int64, error) { return ask("me", a, one) }, false, true},
		{"the same again", func() (int64, error) { return ask("me", a, one) }, true, true},
		{"somebody else asks", func() (int64, error) { return ask("you", a, one) }, false, true},
		{"the key was taken away", func() (int64, error) { return ask("me", a, map[string][]byte{"bob.pub": bob.Public}) }, false, false},
		{"a refusal may be mended in the registry", func() (int64, error) { return ask("me", a, map[string][]byte{"bob.pub": bob.Public}) }, false, false},
		{"another artifact", func() (int64, error) { return ask("me", s.artifact(), one) }, false, false},
		{"the last that was good", func() (int64, error) { return ask("me", a, one) }, true, true},
		{"it was forgotten", func() (int64, error) { v.Forget("me"); return ask("me", a, one) }, false, true},
	} {
		requests, err := step.ask()
		if (requests == 0) != step.free || (err == nil) != step.good {
			t.Errorf("%s: %d requests, %v", step.reason, requests, err)
		}
	}
}

// A registry that does not do as it should is told apart from an artifact that is not signed.
func TestRegistryFails(t *testing.T) {
	t.Parallel()
	key := signtest.NewCosignKey(t, 0)
	for _, row := range []struct {
		name, reason string
		status       int
		kind         failure.Kind
	}{
		{"broken", "the registry has a problem", http.StatusBadGateway, failure.Unavailable},
		{"refused", "the credentials do not do", http.StatusForbidden, failure.Denied},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					w.WriteHeader(row.status)
				}
			}))
			defer server.Close()
			repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/app")
			must(t, err)
			a := ocitest.Artifact{Repository: repository, Digest: hash(t, otherDigest)}
			for what, trust := range map[string]verify.Trust{
				"cosign":   trustKeys(t, map[string][]byte{"k.pub": key.Public}),
				"notation": trustPolicy(t, map[string][]byte{verify.PolicyKey: signtest.NotationPolicy("*", "strict", "*"), "ca.crt": signtest.NewNotationCA(t, "ours").Certificate}),
			} {
				got, err := newVerifier().Verify(t.Context(), "me", request(a, trust))
				expect(t, got, err, verify.Unreachable, a.Digest.String())
				if failure.KindOf(err) != row.kind || failure.Terminal(err) {
					t.Errorf("%s: kind %s of %v, want %s", what, failure.KindOf(err), err, row.kind)
				}
			}
		})
	}
}

// A verification ends with its context.
func TestVerifyEnds(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newVerifier().Verify(ctx, "me", request(s.artifact(), trustKeys(t, map[string][]byte{"k.pub": signtest.NewCosignKey(t, 0).Public})))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A registry that knows nothing of referrers, and says so in a way of its own, still has the signatures of the older format; one
// that has none there is not taken for one without signatures.
func TestRegistryWithoutReferrers(t *testing.T) {
	t.Parallel()
	s, key := newShelf(t, true), signtest.NewCosignKey(t, 0)
	keys := trustKeys(t, map[string][]byte{"k.pub": key.Public})
	signed, bare := s.artifact(), s.artifact()
	key.Sign(t, signed, signtest.CosignTag)
	s.refuse.Store(true)
	got, err := newVerifier().Verify(t.Context(), "me", request(signed, keys))
	expect(t, got, err, "", "k.pub")
	got, err = newVerifier().Verify(t.Context(), "me", request(bare, keys))
	expect(t, got, err, verify.Unreachable, "405")
}
