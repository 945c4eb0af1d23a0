package signtest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/bowline-dev/bowline/internal/testkit/front"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// How cosign keeps signatures.
const (
	bundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	simpleMediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	// SignPredicate is what a plain signature states.
	SignPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// CosignFormat is a form in which cosign keeps signatures in a registry.
type CosignFormat string

// The forms: a bundle that refers to the artifact (since version 3), a manifest under a tag (before), and one that refers
// to it (before, when told so).
const (
	CosignBundle    CosignFormat = "bundle"
	CosignTag       CosignFormat = "tag"
	CosignReferring CosignFormat = "referring"
)

// CosignKey is a pair of keys made for the test.
type CosignKey struct {
	// Public is the public key in PEM.
	Public []byte
	pair   *sign.EphemeralKeypair
}

// NewCosignKey makes a pair of keys; 0 is what cosign makes, an ECDSA key on the curve P-256.
func NewCosignKey(t testing.TB, algorithm protocommon.PublicKeyDetails) *CosignKey {
	t.Helper()
	pair, err := sign.NewEphemeralKeypair(&sign.EphemeralKeypairOptions{Algorithm: algorithm})
	front.Must(t, err)
	public, err := pair.GetPublicKeyPem()
	front.Must(t, err)
	return &CosignKey{Public: []byte(public), pair: pair}
}

// Sign signs an artifact.
func (k *CosignKey) Sign(t testing.TB, a ocitest.Artifact, format CosignFormat) {
	t.Helper()
	k.SignAs(t, a, format, a.Digest.String())
}

// SignAs signs a digest, and puts the signature beside an artifact that may have another one.
func (k *CosignKey) SignAs(t testing.TB, a ocitest.Artifact, format CosignFormat, digest string) {
	t.Helper()
	if format == CosignBundle {
		k.State(t, a, SignPredicate, digest)
		return
	}
	payload := simplePayload(digest)
	simple(t, a, format, k.simple(t, payload, payload))
}

// SignTampered signs an artifact, and then changes what it signed.
func (k *CosignKey) SignTampered(t testing.TB, a ocitest.Artifact, format CosignFormat) {
	t.Helper()
	if format == CosignBundle {
		attach(t, a, bundled(k.bundle(t, statementOf(SignPredicate, a.Digest.String()), func(b []byte) []byte { return append(b, ' ') }), SignPredicate))
		return
	}
	payload := simplePayload(a.Digest.String())
	simple(t, a, format, k.simple(t, payload, append(payload, ' ')))
}

// State signs a statement about a digest.
func (k *CosignKey) State(t testing.TB, a ocitest.Artifact, predicate, digest string) {
	t.Helper()
	attach(t, a, bundled(k.bundle(t, statementOf(predicate, digest), func(b []byte) []byte { return b }), predicate))
}

func (k *CosignKey) bundle(t testing.TB, statement []byte, then func([]byte) []byte) []byte {
	t.Helper()
	b, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: "application/vnd.in-toto+json"}, k.pair, sign.BundleOptions{Context: t.Context()})
	front.Must(t, err)
	b.GetDsseEnvelope().Payload = then(b.GetDsseEnvelope().Payload)
	raw, err := protojson.Marshal(b)
	front.Must(t, err)
	return raw
}

func (k *CosignKey) simple(t testing.TB, payload, kept []byte) signedBy {
	t.Helper()
	signature, _, err := k.pair.SignData(t.Context(), payload)
	front.Must(t, err)
	return simpleOf(kept, signature, nil)
}

func statementOf(predicate, digest string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		digest[len("sha256:"):], predicate)
}

func bundled(content []byte, predicate string) signedBy {
	return signedBy{artifactType: bundleMediaType, mediaType: bundleMediaType, content: content, told: map[string]string{
		"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate,
	}}
}

func simplePayload(digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
}

func simpleOf(payload, signature []byte, notes map[string]string) signedBy {
	s := signedBy{
		artifactType: "application/vnd.dev.cosign.artifact.sig.v1+json", mediaType: simpleMediaType, content: payload,
		notes: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	}
	for k, v := range notes {
		s.notes[k] = v
	}
	return s
}

// simple keeps signatures in the older format.
func simple(t testing.TB, a ocitest.Artifact, format CosignFormat, signatures ...signedBy) {
	t.Helper()
	if format == CosignTag {
		tag(t, a, signatures)
		return
	}
	for _, s := range signatures {
		attach(t, a, s)
	}
}

// entryNote is a log's entry in the older format.
func entryNote(t testing.TB, s *Sigstore, e logEntry) string {
	t.Helper()
	note, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": e.promise,
		"Payload": map[string]any{
			"body": e.body, "integratedTime": e.at, "logIndex": e.index, "logID": hex.EncodeToString(s.logID(t)),
		},
	})
	front.Must(t, err)
	return string(note)
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
