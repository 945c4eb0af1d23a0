package verify

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/testing/data"
)

// A signature that Sigstore's public instance really issued, logged and let a log of certificates see is good for
// what it is about and for whom it is by, and for nothing else, by the root of that instance.
func TestPublicSignature(t *testing.T) {
	t.Parallel()
	trusted := data.TrustedRoot(t, "public-good.json")
	verifier, err := certificateVerifier(trusted)
	if err != nil {
		t.Fatal(err)
	}
	about := v1.Hash{Algorithm: "sha512", Hex: "46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c"}
	workflow := Identity{Issuer: "^https://token.actions.githubusercontent.com$", Subject: "^https://github.com/sigstore/sigstore-js/"}
	for _, row := range []struct {
		name, reason string
		digest       v1.Hash
		who          Identity
		cause        Cause
	}{
		{"good", "it is as it says", about, workflow, ""},
		{"other", "it is about something else", v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)}, workflow, OtherDigest},
		{"somebody", "another workflow is trusted", about, Identity{Issuer: workflow.Issuer, Subject: "^https://github.com/evil/"}, OtherIdentity},
	} {
		t.Run(row.name, func(t *testing.T) {
			trust, err := CosignIdentities([]Identity{row.who}, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			of := artifact{name: "registry.example.com/app", digest: row.digest}
			got, refused := trust.(*identities).check(of, proof{Bundle: data.Bundle(t, "sigstore.js@2.0.0-provenance.sigstore.json")}, trusted, verifier)
			switch {
			case row.cause == "" && refused != nil:
				t.Errorf("refused: %v", refused)
			case row.cause == "" && !strings.Contains(got.String(), "sigstore-js"):
				t.Errorf("by %s", got)
			case row.cause != "" && (refused == nil || refused.Cause != row.cause):
				t.Errorf("got %v and %v, want %s", got, refused, row.cause)
			}
		})
	}
}
