package verify_test

import (
	"bytes"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

// Whoever may write beside an artifact fills no memory: of many large signatures no more are read than anybody has.
func TestCosignTooMuch(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	a := s.artifact()
	signatures := empty.Image
	const large = 6
	for i := range large {
		content := bytes.Repeat([]byte{byte(i)}, 11<<20)
		var err error
		signatures, err = mutate.Append(signatures, mutate.Addendum{
			Layer:       static.NewLayer(content, "application/vnd.dev.cosign.simplesigning.v1+json"),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": "AAAA"},
		})
		must(t, err)
	}
	must(t, remote.Write(s.repository.Tag(a.Digest.Algorithm+"-"+a.Digest.Hex+".sig"), signatures))
	before := s.asked.Load()
	key := signtest.NewCosignKey(t, 0)
	got, err := newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, map[string][]byte{"a.pub": key.Public})))
	expect(t, got, err, verify.Mistrusted)
	const others = 3 // is it a registry, what refers to the artifact, the manifest of the signatures
	if n := s.asked.Load() - before; n >= others+large {
		t.Errorf("%d requests: all of it was read", n)
	}
}
