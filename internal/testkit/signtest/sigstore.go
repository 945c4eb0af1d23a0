package signtest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/bowline-dev/bowline/internal/testkit/front"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// Sigstore is an instance of Sigstore made for the test: a certificate authority, a transparency log
// and a timestamp authority, all of which sign for real.
type Sigstore struct {
	virtual *ca.VirtualSigstore
}

// NewSigstore makes an instance of its own.
func NewSigstore(t testing.TB) *Sigstore {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	front.Must(t, err)
	return &Sigstore{virtual}
}

// RootParts are what a trusted root may leave out, or say otherwise.
type RootParts struct {
	// WithoutLog leaves the transparency log out; WithoutStamps the timestamp authority.
	WithoutLog, WithoutStamps bool
	// CertificateLog names a log of certificates, which no certificate of the instance was written to.
	CertificateLog bool
	// Ended says that the certificate authority ended an hour ago.
	Ended bool
}

// Root is the instance's trusted root, as cosign writes it.
func (s *Sigstore) Root(t testing.TB, parts RootParts) []byte {
	t.Helper()
	authority := *s.virtual.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority)
	if parts.Ended {
		authority.ValidityPeriodEnd = time.Now().Add(-time.Hour)
	}
	var logs, certificateLogs map[string]*root.TransparencyLog
	if !parts.WithoutLog {
		logs = named(t, s.virtual.RekorLogs())
	}
	if parts.CertificateLog {
		certificateLogs = named(t, s.virtual.CTLogs())
	}
	var stamps []root.TimestampingAuthority
	if !parts.WithoutStamps {
		stamps = s.virtual.TimestampingAuthorities()
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{&authority}, certificateLogs, stamps, logs)
	front.Must(t, err)
	raw, err := json.Marshal(trusted)
	front.Must(t, err)
	return raw
}

// named gives logs the identifiers that a trusted root has: bytes, where the library's tests have text.
func named(t testing.TB, logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
	t.Helper()
	logs = maps.Clone(logs)
	for id, log := range logs {
		raw, err := hex.DecodeString(id)
		front.Must(t, err)
		log.ID = raw
	}
	return logs
}

func (s *Sigstore) logID(t testing.TB) []byte {
	t.Helper()
	id, err := s.virtual.RekorLogID()
	front.Must(t, err)
	raw, err := hex.DecodeString(id)
	front.Must(t, err)
	return raw
}

// Signature says how to sign with a certificate.
type Signature struct {
	Subject, Issuer string
	// Digest is what to sign, instead of the artifact's own.
	Digest string
	// Late is how long after the certificate was issued the log has the signature; certificates are good for ten minutes.
	Late time.Duration
	// Unlogged leaves out the log's entry, Unstamped the timestamps.
	Unlogged, Unstamped bool
}

// Sign signs an artifact with a certificate of the instance.
func (s *Sigstore) Sign(t testing.TB, a ocitest.Artifact, format CosignFormat, how Signature) {
	t.Helper()
	digest := how.Digest
	if digest == "" {
		digest = a.Digest.String()
	}
	at := time.Now().Add(max(how.Late, time.Minute))
	if format == CosignBundle {
		entity, err := s.virtual.AttestAtTime(how.Subject, how.Issuer, statementOf(SignPredicate, digest), at, true)
		front.Must(t, err)
		attach(t, a, bundled(s.bundle(t, entity, how), SignPredicate))
		return
	}
	payload := simplePayload(digest)
	entity, err := s.virtual.SignAtTime(how.Subject, how.Issuer, payload, at)
	front.Must(t, err)
	notes := map[string]string{"dev.sigstore.cosign/certificate": pemOf(certificateOf(t, entity))}
	if !how.Unlogged {
		notes["dev.sigstore.cosign/bundle"] = entryNote(t, s, s.entry(t, entity))
	}
	if !how.Unstamped {
		stamps, err := entity.Timestamps()
		front.Must(t, err)
		notes["dev.sigstore.cosign/rfc3161timestamp"] = `{"SignedRFC3161Timestamp":"` + base64.StdEncoding.EncodeToString(stamps[0]) + `"}`
	}
	content, err := entity.SignatureContent()
	front.Must(t, err)
	simple(t, a, format, simpleOf(payload, content.Signature(), notes))
}

// logEntry is what the log says of a signature.
type logEntry struct {
	body, promise []byte
	at, index     int64
	proof         *protorekor.InclusionProof
}

func (s *Sigstore) entry(t testing.TB, entity verify.SignedEntity) logEntry {
	t.Helper()
	entries, err := entity.TlogEntries()
	front.Must(t, err)
	e := entries[0].TransparencyLogEntry()
	// The library's tests keep the promise to themselves.
	promise, err := s.virtual.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(e.CanonicalizedBody), IntegratedTime: e.IntegratedTime, LogIndex: e.LogIndex, LogID: hex.EncodeToString(s.logID(t)),
	})
	front.Must(t, err)
	return logEntry{e.CanonicalizedBody, promise, e.IntegratedTime, e.LogIndex, e.InclusionProof}
}

// bundle writes an entity down as a bundle.
func (s *Sigstore) bundle(t testing.TB, entity verify.SignedEntity, how Signature) []byte {
	t.Helper()
	content, err := entity.SignatureContent()
	front.Must(t, err)
	envelope := content.EnvelopeContent().RawEnvelope()
	payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
	front.Must(t, err)
	b := &protobundle.Bundle{
		MediaType: bundleMediaType,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: envelope.PayloadType, Signatures: []*protodsse.Signature{{Sig: content.Signature()}},
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{
			Certificate: &protocommon.X509Certificate{RawBytes: certificateOf(t, entity)},
		}},
	}
	if !how.Unlogged {
		e := s.entry(t, entity)
		b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{{
			LogIndex: e.index, LogId: &protocommon.LogId{KeyId: s.logID(t)}, KindVersion: &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"},
			IntegratedTime: e.at, InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: e.promise}, InclusionProof: e.proof, CanonicalizedBody: e.body,
		}}
	}
	if !how.Unstamped {
		stamps, err := entity.Timestamps()
		front.Must(t, err)
		b.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamps[0]}},
		}
	}
	raw, err := protojson.Marshal(b)
	front.Must(t, err)
	return raw
}

func certificateOf(t testing.TB, entity verify.SignedEntity) []byte {
	t.Helper()
	content, err := entity.VerificationContent()
	front.Must(t, err)
	return content.Certificate().Raw
}
