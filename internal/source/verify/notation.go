package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	// The two formats of envelopes announce themselves when they are imported.
	_ "github.com/notaryproject/notation-core-go/signature/cose"
	_ "github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PolicyKey is the name under which a Secret holds a trust policy of notation.
const PolicyKey = "trustpolicy.json"

// policy trusts certificates by a trust policy of notation.
type policy struct {
	object   string // the Secret that it is from
	id       string
	document *trustpolicy.Document
	store    store
}

// NotationPolicy trusts what a trust policy of notation does: PolicyKey of a Secret, with the certificates of the
// authorities under names that end in .crt, .pem or .der. As with the toolkit's engine, all of these are in every trust
// store that the policy names. Object names the Secret in messages.
func NotationPolicy(object string, secret map[string][]byte) (Trust, error) {
	text, ok := secret[PolicyKey]
	if !ok {
		return nil, refuse(Unusable, object, errors.New("it has no "+PolicyKey), "add the trust policy")
	}
	t := &policy{object: object, document: &trustpolicy.Document{}}
	where := object + ", " + PolicyKey
	if err := json.Unmarshal(text, t.document); err != nil {
		return nil, refuse(Unusable, where, err, "correct it")
	}
	settle(t.document)
	if err := t.document.Validate(); err != nil {
		return nil, refuse(Unusable, where, err, "correct it")
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%d\n%s", len(text), text) // a hash takes all
	for _, n := range names(secret, ".crt", ".pem", ".der") {
		certificates, err := certificatesOf(secret[n])
		if err != nil {
			return nil, refuse(Unusable, object+", "+n, err, "put there certificates in PEM or DER")
		}
		t.store = append(t.store, certificates...)
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", n, len(secret[n]), secret[n]) // a hash takes all
	}
	if len(t.store) == 0 {
		return nil, refuse(Unusable, object, errors.New("it holds no certificate: no name ends in .crt, .pem or .der"), "add those of the authorities that are trusted")
	}
	t.id = "notation " + hex.EncodeToString(sum.Sum(nil))
	return t, nil
}

// certificatesOf reads certificates: PEM blocks one after the other, or DER.
func certificatesOf(data []byte) ([]*x509.Certificate, error) {
	var der []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("there is a %s among the certificates", block.Type)
		}
		der = append(der, block.Bytes...)
	}
	if der == nil {
		der = data
	}
	found, err := x509.ParseCertificates(der)
	if err == nil && len(found) == 0 {
		err = errors.New("there is no certificate in it")
	}
	return found, err
}

// settle takes out of a policy what has no say. One that skips verification needs neither stores nor identities, and may have
// none; and where nobody heeds what a revocation server says, or whose certificate it is that
// names it, there is no use in asking one.
func settle(d *trustpolicy.Document) {
	for i := range d.TrustPolicies {
		s := &d.TrustPolicies[i]
		level, err := s.SignatureVerification.GetVerificationLevel()
		if err != nil {
			continue // told when the whole is validated
		}
		if level.Name == trustpolicy.LevelSkip.Name {
			s.TrustStores, s.TrustedIdentities = nil, nil
			continue
		}
		if level.Enforcement[trustpolicy.TypeRevocation] == trustpolicy.ActionEnforce && level.Enforcement[trustpolicy.TypeAuthenticity] == trustpolicy.ActionEnforce {
			continue
		}
		override := map[trustpolicy.ValidationType]trustpolicy.ValidationAction{}
		for what, action := range s.SignatureVerification.Override {
			override[what] = action
		}
		override[trustpolicy.TypeRevocation] = trustpolicy.ActionSkip
		s.SignatureVerification.Override = override
	}
}

// store has the certificates of a Secret, whatever trust store they are asked for by.
type store []*x509.Certificate

// GetCertificates implements notation's trust store.
func (s store) GetCertificates(context.Context, truststore.Type, string) ([]*x509.Certificate, error) {
	return s, nil
}

// ID implements Trust.
func (t *policy) ID() string { return t.id }

func (t *policy) verify(ctx context.Context, of artifact, v *Verifier) (Result, error) {
	reference, statement, err := t.applicable(of)
	if err != nil {
		return Result{}, err
	}
	level, err := statement.SignatureVerification.GetVerificationLevel()
	if err != nil {
		return Result{}, refuse(Unusable, t.object+", "+PolicyKey, err, "correct it")
	}
	if level.Name == trustpolicy.LevelSkip.Name {
		return Result{Remark: fmt.Sprintf("the policy '%s' of %s skips it", statement.Name, t.object)}, nil
	}
	verifier, err := t.verifier(v.http)
	if err != nil {
		return Result{}, refuse(Unusable, t.object+", "+PolicyKey, err, "correct it")
	}
	envelopes, problem, err := of.envelopes(ctx)
	if err != nil {
		return Result{}, err
	}
	target, err := of.descriptor(ctx)
	if err != nil {
		return Result{}, err
	}
	desc := ocispec.Descriptor{MediaType: string(target.MediaType), Digest: digestOf(of.digest), Size: target.Size}
	for _, e := range envelopes {
		outcome, err := verifier.Verify(ctx, desc, e.content, notation.VerifierVerifyOptions{ArtifactReference: reference, SignatureMediaType: e.mediaType})
		if err == nil {
			return t.accepted(statement.Name, outcome), nil
		}
		problem = nearest(problem, t.refused(of, outcome, err))
	}
	if problem == nil {
		return Result{}, refuse(Unsigned, of.String(), errors.New("there is no signature of notation beside it"), "sign it with notation, or take spec.verify away")
	}
	return Result{}, problem
}

// applicable finds the statement of the policy that is about the artifact. The scopes of a policy are the
// repository as users write it, or as clients write it out, which differ for Docker's own registry.
func (t *policy) applicable(of artifact) (reference string, statement *trustpolicy.TrustPolicy, err error) {
	spelled := []string{of.name}
	if written, err := name.NewRepository(of.name); err == nil {
		spelled = append(spelled, written.Name())
	}
	for _, repository := range spelled {
		reference = repository + "@" + of.digest.String()
		if statement, err = t.document.GetApplicableTrustPolicy(reference); err == nil {
			return reference, statement, nil
		}
	}
	return "", nil, refuse(Unusable, t.object+", "+PolicyKey, fmt.Errorf("no trust policy is about %s", of.name), "add it to the registryScopes of one")
}

// envelope is one signature of notation.
type envelope struct {
	mediaType string
	content   []byte
}

// envelopes reads the signatures beside the artifact; the problem is what kept one from being read.
func (a artifact) envelopes(ctx context.Context) (found []envelope, problem *Error, err error) {
	listed, err := a.referrers(ctx, func(t string) bool { return t == registry.ArtifactTypeNotation })
	if err != nil {
		return nil, nil, err
	}
	for _, d := range listed {
		e, err := a.envelope(ctx, a.repository.Digest(d.Digest.String()))
		var refused *Error
		switch {
		case errors.Is(err, errOther):
		case errors.As(err, &refused) && refused.Cause == Malformed:
			problem = refused
		case err != nil:
			return nil, nil, err
		default:
			found = append(found, e)
		}
	}
	return found, problem, nil
}

// errOther says that what refers to an artifact is something else than a signature of notation.
var errOther = errors.New("no signature of notation")

func (a artifact) envelope(ctx context.Context, ref name.Digest) (envelope, error) {
	malformed := func(why string) error {
		return refuse(Malformed, a.String(), fmt.Errorf("the signature %s cannot be read: %s", ref.Identifier(), why), "")
	}
	manifest, err := a.manifest(ctx, ref)
	switch {
	case err != nil:
		return envelope{}, err
	case manifest == nil:
		return envelope{}, malformed("it is listed and not there")
	case manifest.ArtifactType != registry.ArtifactTypeNotation && string(manifest.Config.MediaType) != registry.ArtifactTypeNotation:
		return envelope{}, errOther
	case len(manifest.Layers) != 1:
		return envelope{}, malformed(fmt.Sprintf("it has %d parts where it should have one", len(manifest.Layers)))
	}
	content, err := a.blob(ctx, manifest.Layers[0])
	if err != nil {
		return envelope{}, err
	}
	return envelope{strings.TrimSpace(string(manifest.Layers[0].MediaType)), content}, nil
}
