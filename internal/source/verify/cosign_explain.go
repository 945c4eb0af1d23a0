package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// explain finds out what is wrong with a signature that was refused, by asking for its parts one by one. The
// verdict stands already: what is found here decides about words alone.
func explain(of artifact, p proof, trusted root.TrustedMaterial, v *verify.Verifier, cause error) *Error {
	content, err := p.VerificationContent()
	if err != nil {
		return refuse(Malformed, of.String(), fmt.Errorf("its signature cannot be read: %w", err), "")
	}
	certificate := content.Certificate()
	if certificate == nil {
		return keyMade(of)
	}
	if err := issued(of, certificate, trusted); err != nil {
		return err
	}
	if err := inForce(of, p, certificate, trusted); err != nil {
		return err
	}
	if p.payload == nil {
		if _, err := v.Verify(p, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithoutIdentitiesUnsafe())); err == nil {
			return otherDigest(of)
		}
	}
	return refuse(Mistrusted, of.String(), fmt.Errorf("its signature does not hold: %w", cause), "sign it again")
}

// issued says whether the root issued the certificate, and was in force then.
func issued(of artifact, certificate *x509.Certificate, trusted root.TrustedMaterial) *Error {
	chains, err := verify.VerifyLeafCertificate(certificate.NotBefore, certificate, trusted)
	if err == nil {
		if len(trusted.CTLogs()) == 0 {
			return nil
		}
		if err := verify.VerifySignedCertificateTimestamp(chains, 1, trusted); err != nil {
			return refuse(UntrustedCertificate, of.String(), fmt.Errorf("no log that the trusted root names has seen the certificate of its signer: %w", err), "")
		}
		return nil
	}
	for _, authority := range trusted.FulcioCertificateAuthorities() {
		fulcio, ok := authority.(*root.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		for _, ca := range append([]*x509.Certificate{fulcio.Root}, fulcio.Intermediates...) {
			if ca != nil && certificate.CheckSignatureFrom(ca) == nil {
				return refuse(Expired, of.String(), fmt.Errorf("the authority '%s' was not valid when it issued the certificate of its signer, at %s",
					ca.Subject.CommonName, certificate.NotBefore.UTC().Format(time.RFC3339)), "")
			}
		}
	}
	return refuse(UntrustedCertificate, of.String(), errors.New("the certificate of its signer is by no authority of the trusted root"),
		"check which instance of Sigstore signed it, and name its root in spec.verify.trustedRootSecretRef")
}

// inForce says whether somebody attests that the certificate was in force when it was used.
func inForce(of artifact, p proof, certificate *x509.Certificate, trusted root.TrustedMaterial) *Error {
	span := fmt.Sprintf("the certificate of its signer was valid from %s to %s only",
		certificate.NotBefore.UTC().Format(time.RFC3339), certificate.NotAfter.UTC().Format(time.RFC3339))
	entries, err := p.TlogEntries()
	if err != nil {
		return refuse(Malformed, of.String(), fmt.Errorf("the entry of the log cannot be read: %w", err), "")
	}
	for _, e := range entries {
		if at := e.IntegratedTime(); !at.IsZero() && (at.Before(certificate.NotBefore) || at.After(certificate.NotAfter)) {
			return refuse(Expired, of.String(), fmt.Errorf("%s, and the signature is of %s", span, at.UTC().Format(time.RFC3339)), "sign it again")
		}
	}
	stamps, _, err := verify.VerifySignedTimestamp(p, trusted)
	if err != nil {
		return refuse(Malformed, of.String(), fmt.Errorf("the timestamps cannot be read: %w", err), "")
	}
	for _, s := range stamps {
		if s.Time.Before(certificate.NotBefore) || s.Time.After(certificate.NotAfter) {
			return refuse(Expired, of.String(), fmt.Errorf("%s, and the signature is of %s", span, s.Time.UTC().Format(time.RFC3339)), "sign it again")
		}
	}
	if len(trusted.RekorLogs()) == 0 {
		if len(stamps) == 0 {
			return refuse(UntrustedCertificate, of.String(), errors.New("nobody whom the trusted root names attests when it was signed"), "sign it with a timestamp")
		}
		return nil
	}
	times, err := verify.VerifyTlogEntry(p, trusted, 1, true)
	switch {
	case err != nil:
		return refuse(UntrustedCertificate, of.String(), fmt.Errorf("no log that the trusted root names has the signature: %w", err), "sign it with a log's entry")
	case len(times) == 0 && len(stamps) == 0:
		return refuse(UntrustedCertificate, of.String(), errors.New("nobody whom the trusted root names attests when it was signed"), "sign it with a timestamp")
	default:
		return nil
	}
}
