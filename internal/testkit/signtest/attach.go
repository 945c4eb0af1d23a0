// Package signtest signs what is in a registry, as cosign and notation do.
package signtest

import (
	"encoding/json"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bowline-dev/bowline/internal/testkit/front"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// signedBy is one signature as a registry keeps it.
type signedBy struct {
	artifactType, mediaType string
	content                 []byte
	// notes annotate the layer, told the manifest.
	notes, told map[string]string
}

// attach pushes a signature as a referrer of the artifact.
func attach(t testing.TB, a ocitest.Artifact, s signedBy) {
	t.Helper()
	subject, err := remote.Head(a.Repository.Digest(a.Digest.String()), a.Options...)
	front.Must(t, err)
	subject.Annotations, subject.ArtifactType = nil, ""
	m := manifestOf(t, a, []signedBy{s})
	m.Subject, m.ArtifactType, m.Annotations = subject, s.artifactType, s.told
	raw := rawOf(t, m)
	digest, err := partialDigest(raw)
	front.Must(t, err)
	front.Must(t, remote.Put(a.Repository.Digest(digest.String()), raw, a.Options...))
}

// tag pushes signatures under the tag that cosign made of a digest before version 3.
func tag(t testing.TB, a ocitest.Artifact, signatures []signedBy) {
	t.Helper()
	tag := a.Repository.Tag(a.Digest.Algorithm + "-" + a.Digest.Hex + ".sig")
	front.Must(t, remote.Put(tag, rawOf(t, manifestOf(t, a, signatures)), a.Options...))
}

// manifestOf pushes the content of signatures, and returns the manifest that names them.
func manifestOf(t testing.TB, a ocitest.Artifact, signatures []signedBy) *v1.Manifest {
	t.Helper()
	push := func(content []byte, mediaType string) v1.Descriptor {
		layer := static.NewLayer(content, types.MediaType(mediaType))
		front.Must(t, remote.WriteLayer(a.Repository, layer, a.Options...))
		digest, err := layer.Digest()
		front.Must(t, err)
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
	front.Must(t, err)
	return raw
}

// RawManifest and MediaType are what the library pushes.
func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func partialDigest(m rawManifest) (v1.Hash, error) {
	return static.NewLayer(m, types.OCIManifestSchema1).Digest()
}
