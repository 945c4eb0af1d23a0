package verify

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/opencontainers/go-digest"
)

// verifier makes notation's, which runs no plugins and asks about revocation with the client that is given.
func (t *policy) verifier(client *http.Client) (notation.Verifier, error) {
	var o verifier.VerifierOptions
	for p, validator := range map[purpose.Purpose]*revocation.Validator{
		purpose.CodeSigning: &o.RevocationCodeSigningValidator, purpose.Timestamping: &o.RevocationTimestampingValidator,
	} {
		lists, err := crl.NewHTTPFetcher(client)
		if err != nil {
			return nil, err
		}
		*validator, err = revocation.NewWithOptions(revocation.Options{OCSPHTTPClient: client, CRLFetcher: lists, CertChainPurpose: p})
		if err != nil {
			return nil, err
		}
	}
	return verifier.NewWithOptions(t.document, t.store, nil, o)
}

func digestOf(h v1.Hash) digest.Digest {
	return digest.NewDigestFromEncoded(digest.Algorithm(h.Algorithm), h.Hex)
}

// accepted says who signed. A policy may let a signature pass that it does not find good: then nobody vouches.
func (t *policy) accepted(policy string, outcome *notation.VerificationOutcome) Result {
	for _, r := range outcome.VerificationResults {
		if r.Type == trustpolicy.TypeAuthenticity && r.Error != nil {
			return Result{Remark: fmt.Sprintf("the policy '%s' of %s lets it pass all the same: %v", policy, t.object, r.Error)}
		}
	}
	result := Result{Verified: true, By: "'" + outcome.EnvelopeContent.SignerInfo.CertificateChain[0].Subject.String() + "'"}
	for _, r := range outcome.VerificationResults {
		if r.Error != nil {
			result.Remark = fmt.Sprintf("the policy '%s' of %s does not heed the %s of it: %v", policy, t.object, r.Type, r.Error)
		}
	}
	return result
}

// refused says what was wrong with a signature.
func (t *policy) refused(of artifact, outcome *notation.VerificationOutcome, err error) *Error {
	if outcome == nil {
		return refuse(Malformed, of.String(), fmt.Errorf("its signature cannot be judged: %w", err), "")
	}
	for _, r := range outcome.VerificationResults {
		if r.Error == nil || r.Action != trustpolicy.ActionEnforce {
			continue
		}
		return t.broken(of, outcome, r)
	}
	if signed, ok := targetOf(outcome); ok && signed != digestOf(of.digest) {
		return otherDigest(of)
	}
	return refuse(Malformed, of.String(), fmt.Errorf("its signature cannot be judged: %w", err), "")
}

// targetOf returns the digest of what was signed.
func targetOf(outcome *notation.VerificationOutcome) (signed digest.Digest, ok bool) {
	if outcome.EnvelopeContent == nil {
		return "", false
	}
	var payload struct {
		Target struct {
			Digest digest.Digest `json:"digest"`
		} `json:"targetArtifact"`
	}
	if err := json.Unmarshal(outcome.EnvelopeContent.Payload.Content, &payload); err != nil {
		return "", false
	}
	return payload.Target.Digest, payload.Target.Digest != ""
}

// broken says which rule of the policy a signature breaks.
func (t *policy) broken(of artifact, outcome *notation.VerificationOutcome, r *notation.ValidationResult) *Error {
	switch r.Type {
	case trustpolicy.TypeIntegrity:
		return refuse(Mistrusted, of.String(), fmt.Errorf("its signature does not hold: %w", r.Error), "sign it again")
	case trustpolicy.TypeAuthenticity:
		var foreign *signature.SignatureAuthenticityError
		var inconclusive notation.VerificationInconclusiveError
		if errors.As(r.Error, &foreign) || errors.As(r.Error, &inconclusive) {
			return refuse(UntrustedCertificate, of.String(), fmt.Errorf("the certificate of its signer '%s' is by no authority of %s", signerOf(outcome), t.object),
				"sign it with a certificate of one of these, or add the one that issued it")
		}
		return refuse(OtherIdentity, of.String(), fmt.Errorf("it is signed by '%s', whom the trust policy does not name", signerOf(outcome)),
			"have it signed by one who is named, or add this one to trustedIdentities of "+t.object)
	case trustpolicy.TypeRevocation:
		return refuse(Revoked, of.String(), r.Error, "sign it with another certificate")
	default: // what has run out: the signature, or a certificate without a timestamp
		return refuse(Expired, of.String(), r.Error, "sign it again")
	}
}

func signerOf(outcome *notation.VerificationOutcome) string {
	if outcome.EnvelopeContent == nil || len(outcome.EnvelopeContent.SignerInfo.CertificateChain) == 0 {
		return "somebody"
	}
	return cmp.Or(outcome.EnvelopeContent.SignerInfo.CertificateChain[0].Subject.String(), "somebody")
}
