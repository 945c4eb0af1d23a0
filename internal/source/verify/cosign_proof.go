package verify

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// The annotations of a layer in which the older format keeps all but what was signed.
const (
	signatureKey   = "dev.cosignproject.cosign/signature"
	certificateKey = "dev.sigstore.cosign/certificate"
	entryKey       = "dev.sigstore.cosign/bundle"
	timestampKey   = "dev.sigstore.cosign/rfc3161timestamp"
)

// olderBundle is the version of bundles that asks for what the older format has: the promise of a log, not its proof.
const olderBundle = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// proofs reads the signatures that a manifest holds. What cannot be read is the problem, and keeps no other from counting.
// keyed says that keys are trusted, and no certificates.
func (a artifact) proofs(ctx context.Context, ref name.Reference, keyed bool) ([]proof, *Error, error) {
	manifest, err := a.manifest(ctx, ref)
	if err != nil || manifest == nil {
		return nil, nil, err
	}
	var found []proof
	var problem *Error
	left := maxEnvelopes
	for _, layer := range manifest.Layers {
		isBundle := strings.HasPrefix(string(layer.MediaType), bundleType)
		if !isBundle && layer.Annotations[signatureKey] == "" {
			continue
		}
		content, err := a.blob(ctx, layer)
		var refused *Error
		if errors.As(err, &refused) && refused.Cause == Malformed {
			problem = nearest(problem, refused)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if left -= len(content); left < 0 {
			return found, nearest(problem, refuse(Malformed, a.String(), errTooMuch, "")), nil
		}
		p, err := proofOf(layer, content, isBundle, keyed)
		if err != nil {
			problem = nearest(problem, refuse(Malformed, a.String(), fmt.Errorf("the signature %s cannot be read: %w", layer.Digest, err), ""))
			continue
		}
		found = append(found, p)
	}
	return found, problem, nil
}

func proofOf(layer v1.Descriptor, content []byte, isBundle, keyed bool) (proof, error) {
	if !isBundle {
		return older(layer.Annotations, content, keyed)
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(content); err != nil {
		return proof{}, err
	}
	if b.GetDsseEnvelope() == nil {
		return proof{}, errors.New("it states nothing")
	}
	return proof{Bundle: b}, nil
}

// older makes a bundle of a signature in the older format, so that both are judged alike.
func older(notes map[string]string, payload []byte, keyed bool) (proof, error) {
	signed, err := base64.StdEncoding.DecodeString(notes[signatureKey])
	if err != nil {
		return proof{}, fmt.Errorf("annotation %s: %w", signatureKey, err)
	}
	digest := sha256.Sum256(payload)
	pb := &protobundle.Bundle{
		MediaType: olderBundle,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     signed,
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
		},
	}
	if !keyed {
		if err := vouch(pb.VerificationMaterial, notes); err != nil {
			return proof{}, err
		}
	}
	b, err := bundle.NewBundle(pb)
	if err != nil {
		return proof{}, err
	}
	return proof{b, payload}, nil
}

// vouch adds what makes a certificate count: itself, the log's entry and timestamps.
func vouch(m *protobundle.VerificationMaterial, notes map[string]string) error {
	if text := notes[certificateKey]; text != "" {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return fmt.Errorf("annotation %s is no PEM", certificateKey)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("annotation %s: %w", certificateKey, err)
		}
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
			Certificates: []*protocommon.X509Certificate{{RawBytes: block.Bytes}},
		}}
	}
	if text := notes[entryKey]; text != "" {
		entry, err := logged(text)
		if err != nil {
			return fmt.Errorf("annotation %s: %w", entryKey, err)
		}
		m.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text := notes[timestampKey]; text != "" {
		var stamp struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return fmt.Errorf("annotation %s: %w", timestampKey, err)
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp.SignedRFC3161Timestamp}},
		}
	}
	return nil
}

// logged reads the entry of a transparency log as the older format writes it.
func logged(text string) (*protorekor.TransparencyLogEntry, error) {
	var written struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal([]byte(text), &written); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(written.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("logID: %w", err)
	}
	var body struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(written.Payload.Body, &body); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex:          written.Payload.LogIndex,
		LogId:             &protocommon.LogId{KeyId: id},
		KindVersion:       &protorekor.KindVersion{Kind: body.Kind, Version: body.APIVersion},
		IntegratedTime:    written.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: written.SignedEntryTimestamp},
		CanonicalizedBody: written.Payload.Body,
	}, nil
}
