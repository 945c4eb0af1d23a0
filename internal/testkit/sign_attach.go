package testkit

import (
	"encoding/json"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Artifact is something in a registry that can be signed.
type Artifact struct {
	Repository name.Repository
	Digest     v1.Hash
	// Options are what pushes need.
	Options []remote.Option
}

// signedBy is one signature as a registry keeps it.
type signedBy struct {
	artifactType, mediaType string
	content                 []byte
	// notes annotate the layer, told the manifest.
	notes, told map[string]string
}

// attach pushes a signature as a referrer of the artifact.
func (a Artifact) attach(t testing.TB, s signedBy) {
	t.Helper()
	subject, err := remote.Head(a.Repository.Digest(a.Digest.String()), a.Options...)
	must(t, err)
	subject.Annotations, subject.ArtifactType = nil, ""
	m := a.manifest(t, []signedBy{s})
	m.Subject, m.ArtifactType, m.Annotations = subject, s.artifactType, s.told
	raw := rawOf(t, m)
	digest, err := partialDigest(raw)
	must(t, err)
	must(t, remote.Put(a.Repository.Digest(digest.String()), raw, a.Options...))
}

// tag pushes signatures under the tag that cosign made of a digest before version 3.
func (a Artifact) tag(t testing.TB, signatures []signedBy) {
	t.Helper()
	tag := a.Repository.Tag(a.Digest.Algorithm + "-" + a.Digest.Hex + ".sig")
	must(t, remote.Put(tag, rawOf(t, a.manifest(t, signatures)), a.Options...))
}

// manifest pushes the content of signatures, and returns the manifest that names them.
func (a Artifact) manifest(t testing.TB, signatures []signedBy) *v1.Manifest {
	t.Helper()
	push := func(content []byte, mediaType string) v1.Descriptor {
		layer := static.NewLayer(content, types.MediaType(mediaType))
		must(t, remote.WriteLayer(a.Repository, layer, a.Options...))
		digest, err := layer.Digest()
		must(t, err)
		return v1.Descriptor{MediaType: types.MediaType(mediaType), Digest: digest, Size: int64(len(content))}
	}
	m := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: push([]byte("{}"), "application/vnd.oci.empty.v1+json")}
	for _, s := range signatures {
		layer := push(s.content, s.mediaType)
		layer.Annotations = s.notes
		m.Layers = append(m.Layers, layer)
	}
	return m
}

// rawManifest is a manifest as it is pushed.
type rawManifest []byte

func rawOf(t testing.TB, m *v1.Manifest) rawManifest {
	t.Helper()
	raw, err := json.Marshal(m)
	must(t, err)
	return raw
}

// RawManifest and MediaType are what the library pushes.
func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func partialDigest(m rawManifest) (v1.Hash, error) {
	return static.NewLayer(m, types.OCIManifestSchema1).Digest()
}
