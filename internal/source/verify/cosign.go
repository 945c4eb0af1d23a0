package verify

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// bundleType begins the artifact types of what cosign writes since version 3: a bundle
	// of Sigstore that holds a signed statement.
	bundleType = "application/vnd.dev.sigstore.bundle"
	// simpleType is the artifact type of what cosign writes beside an artifact when it is told to use
	// referrers, before version 3; else it is under a tag that is made of the digest.
	simpleType = "application/vnd.dev.cosign.artifact.sig.v1+json"

	// predicateKey tells what a bundle states, and signPredicate is a plain signature. A statement
	// of anything else about an artifact counts as well, as it does for cosign.
	predicateKey  = "dev.sigstore.bundle.predicateType"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// proof is one signature of cosign, in the form in which Sigstore's library takes them.
type proof struct {
	*bundle.Bundle
	// payload is what was signed, where the bundle does not hold it: the claim of the older format.
	payload []byte
}

// check says whether a proof is good, and by whom it is; the error is nil then.
type check func(proof) (Result, *Error)

// cosign looks for a good signature: first among those of today's format, then among the older ones. A registry
// that answers the question what refers to an artifact in a way of its own may have the older ones all the same.
func cosign(ctx context.Context, of artifact, keyed bool, c check) (Result, error) {
	var worst *Error
	attempt := func(proofs []proof, problem *Error) (Result, bool) {
		worst = nearest(worst, problem)
		for _, p := range proofs {
			result, err := c(p)
			if err == nil {
				return result, true
			}
			worst = nearest(worst, err)
		}
		return Result{}, false
	}
	listed, unlisted := of.referrers(ctx, func(t string) bool { return strings.HasPrefix(t, bundleType) || t == simpleType })
	var answer *transport.Error
	if unlisted != nil && !errors.As(unlisted, &answer) {
		return Result{}, unlisted
	}
	for _, d := range plainFirst(listed) {
		proofs, problem, err := of.proofs(ctx, of.repository.Digest(d.Digest.String()), keyed)
		if err != nil {
			return Result{}, err
		}
		if result, ok := attempt(proofs, problem); ok {
			return result, nil
		}
	}
	proofs, problem, err := of.proofs(ctx, of.repository.Tag(of.digest.Algorithm+"-"+of.digest.Hex+".sig"), keyed)
	if err != nil {
		return Result{}, err
	}
	if result, ok := attempt(proofs, problem); ok {
		return result, nil
	}
	if unlisted != nil {
		return Result{}, unlisted
	}
	if worst == nil {
		return Result{}, refuse(Unsigned, of.String(), errors.New("there is no signature of cosign beside it"), "sign it with cosign, or take spec.verify away")
	}
	return Result{}, worst
}

// plainFirst puts plain signatures before other statements, which are larger.
func plainFirst(listed []v1.Descriptor) []v1.Descriptor {
	var plain, others []v1.Descriptor
	for _, d := range listed {
		if said := d.Annotations[predicateKey]; said == "" || said == signPredicate {
			plain = append(plain, d)
		} else {
			others = append(others, d)
		}
	}
	return append(plain, others...)
}

// holds runs Sigstore's verification of a proof for the artifact.
func holds(of artifact, p proof, v *verify.Verifier, who verify.PolicyOption) (*verify.VerificationResult, error) {
	subject, err := subjectOf(of, p)
	if err != nil {
		return nil, err
	}
	return v.Verify(p, verify.NewPolicy(subject, who))
}

func subjectOf(of artifact, p proof) (verify.ArtifactPolicyOption, error) {
	if p.payload != nil {
		return verify.WithArtifact(strings.NewReader(string(p.payload))), nil
	}
	digest, err := hex.DecodeString(of.digest.Hex)
	if err != nil {
		return nil, fmt.Errorf("the digest %s: %w", of.digest, err)
	}
	return verify.WithArtifactDigest(of.digest.Algorithm, digest), nil
}

// claim is what the older format signs, as far as it counts.
type claim struct {
	Critical struct {
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
	} `json:"critical"`
}

// about checks that what was signed is the artifact. The library does so for statements; a claim of the
// older format is just a text to it.
func about(of artifact, p proof) *Error {
	if p.payload == nil {
		return nil
	}
	var c claim
	if err := json.Unmarshal(p.payload, &c); err != nil {
		return refuse(Malformed, of.String(), fmt.Errorf("what was signed is no claim: %w", err), "")
	}
	if got := c.Critical.Image.Digest; got != of.digest.String() {
		return otherDigest(of)
	}
	return nil
}

func otherDigest(of artifact) *Error {
	return refuse(OtherDigest, of.String(), errors.New("the signature beside it is that of another artifact"), "sign this digest")
}
