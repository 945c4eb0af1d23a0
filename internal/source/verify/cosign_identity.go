package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Identity says who may have signed: regular expressions, which match anywhere unless they are anchored.
type Identity struct {
	// Issuer is matched against the issuer of the signer's identity, such as "https://accounts.google.com".
	Issuer string
	// Subject is matched against the identity itself, such as an address of mail or the URL of a workflow.
	Subject string
}

// RootKey is the name under which a Secret holds a trusted root.
const RootKey = "trusted_root.json"

// identities trusts certificates that Sigstore issued to somebody.
type identities struct {
	id       string
	trusted  *root.TrustedRoot // nil: Sigstore's public one
	matchers []matcher
}

type matcher struct{ issuer, subject *regexp.Regexp }

// CosignIdentities trusts signatures with certificates that were issued to one of the identities; with none,
// to anybody. Secret holds a trusted root under RootKey, and object names it in messages; without an object it is
// Sigstore's public root.
func CosignIdentities(ids []Identity, object string, secret map[string][]byte) (Trust, error) {
	t := &identities{}
	sum := sha256.New()
	for i, id := range ids {
		field := fmt.Sprintf("spec.verify.matchOIDCIdentity[%d]", i)
		issuer, err := regexp.Compile(id.Issuer)
		if err != nil {
			return nil, refuse(Unusable, field+".issuer", err, "correct the regular expression")
		}
		subject, err := regexp.Compile(id.Subject)
		if err != nil {
			return nil, refuse(Unusable, field+".subject", err, "correct the regular expression")
		}
		t.matchers = append(t.matchers, matcher{issuer, subject})
		_, _ = fmt.Fprintf(sum, "%q %q\n", id.Issuer, id.Subject) // a hash takes all
	}
	own := object != ""
	if own {
		data := secret[RootKey]
		if len(data) == 0 {
			return nil, refuse(Unusable, object, errors.New("it has no "+RootKey), "add the trusted root that `cosign trusted-root create` writes")
		}
		var err error
		if t.trusted, err = readRoot(data); err != nil {
			return nil, refuse(Unusable, object+", "+RootKey, err, "put there what `cosign trusted-root create` writes")
		}
		_, _ = sum.Write(data) // a hash takes all
	}
	t.id = fmt.Sprintf("cosign-identities %t %s", own, hex.EncodeToString(sum.Sum(nil)))
	return t, nil
}

// ID implements Trust.
func (t *identities) ID() string { return t.id }

func (t *identities) verify(ctx context.Context, of artifact, v *Verifier) (Result, error) {
	trusted := t.trusted
	if trusted == nil {
		var err error
		if trusted, err = v.public.get(ctx); err != nil {
			return Result{}, unreachable(ctx, of.String(), "fetch Sigstore's public root", err)
		}
	}
	verifier, err := certificateVerifier(trusted)
	if err != nil {
		return Result{}, refuse(Unusable, "the trusted root", err, "")
	}
	return cosign(ctx, of, false, func(p proof) (Result, *Error) { return t.check(of, p, trusted, verifier) })
}

// certificateVerifier asks of a signature what the root can vouch for: a log's entry where it names a log, a
// signed timestamp of the certificate where it names logs for those, and in any case a time that somebody
// else attests, at which the certificate was valid.
func certificateVerifier(trusted root.TrustedMaterial) (*verify.Verifier, error) {
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1), verify.WithoutStatementPredicate()}
	if len(trusted.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return verify.NewVerifier(trusted, options...)
}

func (t *identities) check(of artifact, p proof, trusted root.TrustedMaterial, v *verify.Verifier) (Result, *Error) {
	// Whom the certificate names is matched below, so that a refusal can say who signed.
	found, err := holds(of, p, v, verify.WithoutIdentitiesUnsafe())
	if err != nil {
		return Result{}, explain(of, p, trusted, v, err)
	}
	if found.Signature == nil || found.Signature.Certificate == nil {
		return Result{}, keyMade(of)
	}
	if err := about(of, p); err != nil {
		return Result{}, err
	}
	who := *found.Signature.Certificate
	result := Result{Verified: true, By: signer(who)}
	if len(t.matchers) == 0 {
		result.Remark = "anybody's signature would do, as spec.verify.matchOIDCIdentity names nobody"
		return result, nil
	}
	for _, m := range t.matchers {
		if m.issuer.MatchString(who.Issuer) && m.subject.MatchString(who.SubjectAlternativeName) {
			return result, nil
		}
	}
	return Result{}, refuse(OtherIdentity, of.String(), fmt.Errorf("it is signed by %s, whom spec.verify.matchOIDCIdentity does not name", signer(who)),
		"have it signed by one who is named, or name this one")
}

func signer(c certificate.Summary) string {
	return fmt.Sprintf("'%s' of issuer '%s'", cmp.Or(c.SubjectAlternativeName, "nobody"), c.Issuer)
}

func keyMade(of artifact) *Error {
	return refuse(Mistrusted, of.String(), errors.New("it is signed with a key, and not with a certificate"), "name the Secret with the public key in spec.verify.secretRef")
}
