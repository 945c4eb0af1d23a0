package verify_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

func trustPolicy(t testing.TB, secret map[string][]byte) verify.Trust {
	t.Helper()
	trust, err := verify.NotationPolicy("Secret/apps/notation", secret)
	must(t, err)
	return trust
}

// A signature of notation counts when the policy says so.
func TestNotation(t *testing.T) {
	t.Parallel()
	ca, foreign := signtest.NewNotationCA(t, "ours"), signtest.NewNotationCA(t, "theirs")
	me := signtest.NotationSignature{Name: "deploy"}
	cose, ended, brief, other, tampered, somebody := me, me, me, me, me, me
	cose.COSE, ended.Ended, brief.Lapsed, tampered.Tampered, somebody.Name = true, true, true, true, "somebody"
	other.Target = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(otherDigest), Size: 7}
	rows := []struct {
		name, reason  string
		by            *signtest.NotationCA
		how           []signtest.NotationSignature
		level, signer string
		cause         verify.Cause
		words         []string
	}{
		{"right", "it is signed by one whom the policy names", ca, []signtest.NotationSignature{me}, "strict", "deploy", "", []string{"CN=deploy"}},
		{"cose", "the other envelope is as good", ca, []signtest.NotationSignature{cose}, "strict", "deploy", "", []string{"CN=deploy"}},
		{"anybody", "the policy trusts whoever has a certificate", ca, []signtest.NotationSignature{somebody}, "strict", "*", "", []string{"CN=somebody"}},
		{"one of many", "one good signature is enough", ca, []signtest.NotationSignature{ended, somebody, tampered, other, me}, "strict", "deploy", "", []string{"CN=deploy"}},
		{"none", "nobody signed it", ca, nil, "strict", "deploy", verify.Unsigned, []string{"no signature of notation"}},
		{"other authority", "nobody who is trusted issued the certificate", foreign, []signtest.NotationSignature{me}, "strict", "deploy", verify.UntrustedCertificate,
			[]string{"CN=deploy", "Secret/apps/notation"}},
		{"other identity", "the policy names somebody else", ca, []signtest.NotationSignature{somebody}, "strict", "deploy", verify.OtherIdentity, []string{"CN=somebody", "trustedIdentities"}},
		{"ended certificate", "it is no longer valid, and there is no timestamp", ca, []signtest.NotationSignature{ended}, "strict", "deploy", verify.Expired, []string{"CN=deploy"}},
		{"ended signature", "it was made for a while only", ca, []signtest.NotationSignature{brief}, "strict", "deploy", verify.Expired, []string{"expired"}},
		{"tampered", "what was signed is not what is there", ca, []signtest.NotationSignature{tampered}, "strict", "deploy", verify.Mistrusted, nil},
		{"replayed", "a good signature of another artifact", ca, []signtest.NotationSignature{other}, "strict", "deploy", verify.OtherDigest, nil},
		{"permissive", "the policy does not heed what has ended, and people are told", ca, []signtest.NotationSignature{ended}, "permissive", "deploy", "", []string{"CN=deploy", "does not heed"}},
		{"permissive, other authority", "but it heeds who issued the certificate", foreign, []signtest.NotationSignature{me}, "permissive", "deploy", verify.UntrustedCertificate, nil},
		{"audit", "the policy lets pass what nobody vouches for", foreign, []signtest.NotationSignature{me}, "audit", "deploy", "", []string{"not verified", "apps"}},
		{"skip", "the policy asks for nothing", ca, nil, "skip", "deploy", "", []string{"not verified", "skips"}},
	}
	for _, referrers := range []bool{true, false} {
		s := newShelf(t, referrers)
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				a := s.artifact()
				for _, how := range row.how {
					row.by.Sign(t, a, how)
				}
				trust := trustPolicy(t, map[string][]byte{
					verify.PolicyKey: signtest.NotationPolicy(s.repository.Name(), row.level, row.signer), "ca.crt": ca.Certificate,
				})
				got, err := newVerifier().Verify(t.Context(), "me", request(a, trust))
				expect(t, got, err, row.cause, row.words...)
				if vouched := err == nil && !strings.HasPrefix(got.String(), "not"); vouched != got.Verified {
					t.Errorf("verified: %t, and yet %q", got.Verified, got)
				}
			})
		}
	}
}

// Revocation is asked about where the policy enforces it and the certificate is trusted, and nowhere else.
func TestNotationRevocation(t *testing.T) {
	t.Parallel()
	ca, foreign := signtest.NewNotationCA(t, "ours"), signtest.NewNotationCA(t, "theirs")
	for _, row := range []struct {
		name, reason string
		by           *signtest.NotationCA
		level        string
		cause        verify.Cause
		asked        bool
	}{
		{"strict", "the policy enforces it, and the server does not know", ca, "strict", verify.Revoked, true},
		{"permissive", "nobody heeds the answer", ca, "permissive", "", false},
		{"untrusted", "anybody can name a server", foreign, "strict", verify.UntrustedCertificate, false},
		{"audit", "anybody can name a server", foreign, "audit", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Store(true)
				w.WriteHeader(http.StatusInternalServerError)
			}))
			defer server.Close()
			s := newShelf(t, true)
			a := s.artifact()
			row.by.Sign(t, a, signtest.NotationSignature{Name: "deploy", RevokedAt: server.URL})
			trust := trustPolicy(t, map[string][]byte{verify.PolicyKey: signtest.NotationPolicy("*", row.level, "deploy"), "ca.pem": ca.Certificate})
			got, err := newVerifier().Verify(t.Context(), "me", request(a, trust))
			expect(t, got, err, row.cause)
			if asked.Load() != row.asked {
				t.Errorf("the server was asked: %t", asked.Load())
			}
		})
	}
}

// A policy is about repositories as people write them, whatever they are read from.
func TestNotationScope(t *testing.T) {
	t.Parallel()
	ca, s := signtest.NewNotationCA(t, "ours"), newShelf(t, true)
	a := s.artifact()
	ca.Sign(t, a, signtest.NotationSignature{Name: "deploy"})
	for _, row := range []struct {
		name, reason, scope, asked string
		cause                      verify.Cause
	}{
		{"mirror", "the name that people use counts, not that of the mirror", "ghcr.io/org/app", "ghcr.io/org/app", ""},
		{"docker", "Docker's registry as clients write it out", "index.docker.io/org/app", "docker.io/org/app", ""},
		{"docker", "Docker's registry as people write it", "docker.io/org/app", "docker.io/org/app", ""},
		{"other", "the policy is about another repository", "ghcr.io/org/other", "ghcr.io/org/app", verify.Unusable},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := request(a, trustPolicy(t, map[string][]byte{verify.PolicyKey: signtest.NotationPolicy(row.scope, "strict", "deploy"), "ca.crt": ca.Certificate}))
			req.Name = row.asked
			got, err := newVerifier().Verify(t.Context(), "me", req)
			expect(t, got, err, row.cause)
		})
	}
}

// A policy or certificate that is no use says so, and where.
func TestNotationBadPolicy(t *testing.T) {
	t.Parallel()
	ca := signtest.NewNotationCA(t, "ours").Certificate
	good := signtest.NotationPolicy("*", "strict", "deploy")
	for _, row := range []struct {
		name, reason string
		secret       map[string][]byte
		words        []string
	}{
		{"none", "there is no policy", map[string][]byte{"ca.crt": ca}, []string{verify.PolicyKey}},
		{"no JSON", "it cannot be read", map[string][]byte{verify.PolicyKey: []byte("hunter2"), "ca.crt": ca}, []string{verify.PolicyKey}},
		{"empty", "it says nothing", map[string][]byte{verify.PolicyKey: []byte(`{"version":"1.0"}`), "ca.crt": ca}, []string{"statements"}},
		{"version", "nobody knows what it means", map[string][]byte{verify.PolicyKey: []byte(`{"version":"9"}`), "ca.crt": ca}, []string{"version"}},
		{"level", "there is no such level", map[string][]byte{verify.PolicyKey: signtest.NotationPolicy("*", "lax", "deploy"), "ca.crt": ca}, []string{"lax"}},
		{"no certificate", "there is nothing to trust", map[string][]byte{verify.PolicyKey: good}, []string{".crt"}},
		{"broken certificate", "it is none", map[string][]byte{verify.PolicyKey: good, "a.crt": ca, "b.pem": []byte("hunter2")}, []string{"b.pem"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.secret["password"] = []byte("hunter2")
			_, err := verify.NotationPolicy("Secret/apps/notation", row.secret)
			expect(t, verify.Result{}, err, verify.Unusable, append(row.words, "Secret/apps/notation")...)
			if containsSecret(err.Error()) {
				t.Errorf("%q tells what is in the Secret", err)
			}
		})
	}
}
