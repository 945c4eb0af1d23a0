package verify_test

import (
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

const (
	issuer   = "https://issuer.example.com"
	workflow = "deploy@example.com"
)

func trustIdentities(t testing.TB, root []byte, ids ...verify.Identity) verify.Trust {
	t.Helper()
	trust, err := verify.CosignIdentities(ids, "Secret/apps/root", map[string][]byte{verify.RootKey: root})
	must(t, err)
	return trust
}

// A certificate counts when the trusted root issued it, its owner is one who is named, and somebody whom the root
// names attests that it was in force; in both formats, and without a word to anybody but the registry.
func TestCosignIdentities(t *testing.T) {
	t.Parallel()
	mine, other := signtest.NewSigstore(t), signtest.NewSigstore(t)
	me := verify.Identity{Issuer: "^" + issuer + "$", Subject: "^deploy@.*$"}
	somebody := verify.Identity{Issuer: ".*", Subject: "^somebody$"}
	signed := signtest.Signature{Subject: workflow, Issuer: issuer}
	unlogged, bare, late, replayed := signed, signed, signed, signed
	unlogged.Unlogged, bare.Unlogged, bare.Unstamped = true, true, true
	late.Late, replayed.Digest = 20*time.Minute, otherDigest
	promised := signed
	promised.Unstamped = true
	rows := []struct {
		name, reason string
		by           *signtest.Sigstore
		how          signtest.Signature
		root         signtest.RootParts
		ids          []verify.Identity
		cause        verify.Cause
		words        []string
	}{
		{"named", "it is signed by one who is named", mine, signed, signtest.RootParts{}, []verify.Identity{me}, "", []string{workflow, issuer}},
		{"log alone", "the log tells the time", mine, promised, signtest.RootParts{WithoutStamps: true}, []verify.Identity{me}, "", []string{workflow}},
		{"stamps alone", "a root without a log goes by timestamps", mine, unlogged, signtest.RootParts{WithoutLog: true}, []verify.Identity{me}, "", []string{workflow}},
		{"any of them", "one of the identities is enough", mine, signed, signtest.RootParts{}, []verify.Identity{somebody, me}, "", nil},
		{"anybody", "no identity is named, which people are told", mine, signed, signtest.RootParts{}, nil, "", []string{workflow, "names nobody"}},
		{"somebody else", "its owner is not named", mine, signed, signtest.RootParts{}, []verify.Identity{somebody}, verify.OtherIdentity, []string{workflow, issuer, "matchOIDCIdentity"}},
		{"other issuer", "the same name at another issuer is somebody else", mine, signed, signtest.RootParts{}, []verify.Identity{{Issuer: "^https://evil$", Subject: me.Subject}},
			verify.OtherIdentity, nil},
		{"other root", "another instance issued it", other, signed, signtest.RootParts{}, []verify.Identity{me}, verify.UntrustedCertificate, []string{"trustedRootSecretRef"}},
		{"too late", "the certificate had ended when it was used", mine, late, signtest.RootParts{}, []verify.Identity{me}, verify.Expired, []string{"valid from"}},
		{"ended root", "the authority had ended when it issued it", mine, signed, signtest.RootParts{Ended: true}, []verify.Identity{me}, verify.Expired, []string{"authority"}},
		{"unlogged", "the root names a log, which does not have it", mine, unlogged, signtest.RootParts{}, []verify.Identity{me}, verify.UntrustedCertificate, []string{"log"}},
		{"bare", "nobody attests the time", mine, bare, signtest.RootParts{WithoutLog: true}, []verify.Identity{me}, verify.UntrustedCertificate, []string{"when it was signed"}},
		{"certificate log", "the root names a log of certificates, which has not seen it", mine, signed, signtest.RootParts{CertificateLog: true}, []verify.Identity{me},
			verify.UntrustedCertificate, []string{"certificate"}},
		{"replayed", "a good signature of another artifact", mine, replayed, signtest.RootParts{}, []verify.Identity{me}, verify.OtherDigest, []string{"another artifact"}},
	}
	s := newShelf(t, true)
	for _, format := range formats {
		for _, row := range rows {
			t.Run(row.name+" "+string(format), func(t *testing.T) {
				t.Parallel()
				a := s.artifact()
				row.by.Sign(t, a, format, row.how)
				got, err := newVerifier().Verify(t.Context(), "me", request(a, trustIdentities(t, mine.Root(t, row.root), row.ids...)))
				expect(t, got, err, row.cause, row.words...)
			})
		}
	}
}

// What is signed with a key says so to those who trust certificates, and the other way about.
func TestCosignKeyOrCertificate(t *testing.T) {
	t.Parallel()
	s, key, sigstore := newShelf(t, true), signtest.NewCosignKey(t, 0), signtest.NewSigstore(t)
	for _, format := range formats {
		a := s.artifact()
		key.Sign(t, a, format)
		got, err := newVerifier().Verify(t.Context(), "me", request(a, trustIdentities(t, sigstore.Root(t, signtest.RootParts{}))))
		expect(t, got, err, verify.Mistrusted, "spec.verify.secretRef")
		b := s.artifact()
		sigstore.Sign(t, b, format, signtest.Signature{Subject: workflow, Issuer: issuer})
		got, err = newVerifier().Verify(t.Context(), "me", request(b, trustKeys(t, map[string][]byte{"k.pub": key.Public})))
		expect(t, got, err, verify.Mistrusted, "Secret/apps/keys")
	}
}

// A root or an expression that is no use says so, and where.
func TestCosignBadIdentities(t *testing.T) {
	t.Parallel()
	sigstore := signtest.NewSigstore(t)
	good := sigstore.Root(t, signtest.RootParts{})
	for _, row := range []struct {
		name, reason string
		ids          []verify.Identity
		secret       map[string][]byte
		words        []string
	}{
		{"issuer", "it is no regular expression", []verify.Identity{{Issuer: "(", Subject: ".*"}}, nil, []string{"spec.verify.matchOIDCIdentity[0].issuer"}},
		{"subject", "it is no regular expression", []verify.Identity{{Issuer: ".*", Subject: ".*"}, {Issuer: ".*", Subject: "["}}, nil, []string{"spec.verify.matchOIDCIdentity[1].subject"}},
		{"no root", "the Secret has another name for it", nil, map[string][]byte{"root.json": good}, []string{"Secret/apps/root", verify.RootKey}},
		{"empty Secret", "it must not be taken for none", nil, nil, []string{"Secret/apps/root", verify.RootKey}},
		{"broken root", "it is no root", nil, map[string][]byte{verify.RootKey: []byte(`{"mediaType":"text/plain"}`)}, []string{"Secret/apps/root", verify.RootKey}},
		{"empty root", "it can vouch for nobody", nil, map[string][]byte{verify.RootKey: []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)},
			[]string{"certificate authority"}},
		{"timeless root", "nobody attests when anything was signed", nil, map[string][]byte{verify.RootKey: sigstore.Root(t, signtest.RootParts{WithoutLog: true, WithoutStamps: true})},
			[]string{"transparency log"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := verify.CosignIdentities(row.ids, "Secret/apps/root", row.secret)
			expect(t, verify.Result{}, err, verify.Unusable, row.words...)
		})
	}
}
