package verify_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

// written is a manifest of a repository with what it names.
type written struct {
	Tag      string
	Type     string `json:"MediaType"`
	Manifest string
	Blobs    map[string]string
}

// RawManifest and MediaType are what the library pushes.
func (w written) RawManifest() ([]byte, error)        { return []byte(w.Manifest), nil }
func (w written) MediaType() (types.MediaType, error) { return types.MediaType(w.Type), nil }

// push puts a repository into a registry as it was when it was written down, and returns the artifact in it.
func push(t *testing.T, s *shelf, file string) ocitest.Artifact {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	var all []written
	must(t, json.Unmarshal(raw, &all))
	var found ocitest.Artifact
	for _, w := range all {
		for _, content := range w.Blobs {
			must(t, remote.WriteLayer(s.repository, static.NewLayer([]byte(content), "application/octet-stream")))
		}
		digest, err := static.NewLayer([]byte(w.Manifest), types.MediaType(w.Type)).Digest()
		must(t, err)
		must(t, remote.Put(s.repository.Digest(digest.String()), w))
		if w.Tag == "v1" {
			found = ocitest.Artifact{Repository: s.repository, Digest: digest}
		} else if w.Tag != "" {
			must(t, remote.Put(s.repository.Tag(w.Tag), w))
		}
	}
	if found.Digest == (v1.Hash{}) {
		t.Fatal("no artifact in " + file)
	}
	return found
}

// What `cosign sign --key` 3.1.3 wrote into a registry is good, in its three ways to write: its own, that with
// --new-bundle-format=false, and that with --registry-referrers-mode=oci-1-1 besides.
func TestWrittenByCosign(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "cosign-3.1.3")
	public, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
	must(t, err)
	for _, way := range []string{"bundle", "tag", "referring"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			a := push(t, newShelf(t, false), filepath.Join(dir, way+".json"))
			got, err := newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, map[string][]byte{"cosign.pub": public})))
			expect(t, got, err, "", "cosign.pub")
			got, err = newVerifier().Verify(t.Context(), "me", request(a, trustKeys(t, map[string][]byte{"k.pub": signtest.NewCosignKey(t, 0).Public})))
			expect(t, got, err, verify.Mistrusted)
		})
	}
}
