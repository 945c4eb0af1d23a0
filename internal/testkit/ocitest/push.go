package ocitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// Media types of what is pushed.
const (
	FluxConfigMediaType  = "application/vnd.cncf.flux.config.v1+json"
	FluxContentMediaType = "application/vnd.cncf.flux.content.v1.tar+gzip"
	ChartConfigMediaType = "application/vnd.cncf.helm.config.v1+json"
	ChartLayerMediaType  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// OCIArtifact is something to push.
type OCIArtifact struct {
	// ConfigMediaType says what it is; Config is what the config holds, nil for "{}".
	ConfigMediaType string
	Config          []byte
	Layers          []OCILayer
	Annotations     map[string]string
}

// OCILayer is one layer of an OCIArtifact, as it is stored.
type OCILayer struct {
	MediaType string
	Data      []byte
}

// Artifact is something in a registry that can be signed.
type Artifact struct {
	Repository name.Repository
	Digest     v1.Hash
	// Options are what pushes need.
	Options []remote.Option
}

// Push pushes an artifact under tags, and returns the digest of its manifest.
func (r *Registry) Push(repository string, artifact OCIArtifact, tags ...string) string {
	r.T.Helper()
	return r.PushImage(repository, artifact.image(r), tags...)
}

// PushImage pushes what the library made, under tags, and returns its digest.
func (r *Registry) PushImage(repository string, image v1.Image, tags ...string) string {
	r.T.Helper()
	digest, err := image.Digest()
	front.Must(r.T, err)
	if len(tags) == 0 {
		front.Must(r.T, remote.Write(r.Back(repository).Digest(digest.String()), image, r.BackOptions()...))
	}
	for _, tag := range tags {
		front.Must(r.T, remote.Write(r.Back(repository).Tag(tag), image, r.BackOptions()...))
	}
	return digest.String()
}

// Back is a repository of the registry behind the door that always does as it is told, for tests that push
// with a library of their own.
func (r *Registry) Back(repository string) name.Repository {
	r.T.Helper()
	repo, err := name.NewRepository(r.back.Listener.Addr().String()+"/"+repository, name.Insecure)
	front.Must(r.T, err)
	return repo
}

// BackOptions log in there.
func (r *Registry) BackOptions() []remote.Option {
	opts := []remote.Option{remote.WithContext(r.T.Context())}
	if r.cfg.user != "" {
		opts = append(opts, remote.WithAuth(&authn.Basic{Username: r.cfg.user, Password: r.cfg.password}))
	}
	return opts
}

// Signable is what was pushed with a digest, for those who sign.
func (r *Registry) Signable(repository, digest string) Artifact {
	r.T.Helper()
	hash, err := v1.NewHash(digest)
	front.Must(r.T, err)
	return Artifact{Repository: r.Back(repository), Digest: hash, Options: r.BackOptions()}
}

// PushFiles pushes files as `flux push artifact` does.
func (r *Registry) PushFiles(repository string, files, annotations map[string]string, tags ...string) string {
	r.T.Helper()
	return r.Push(repository, OCIArtifact{
		ConfigMediaType: FluxConfigMediaType, Annotations: annotations,
		Layers: []OCILayer{{FluxContentMediaType, testkit.TarGz(r.T, files)}},
	}, tags...)
}

// PushChart pushes a packed chart as `helm push` does, under the tag of its version.
func (r *Registry) PushChart(repository string, packed []byte) string {
	r.T.Helper()
	meta := chartMetadata(r.T, packed)
	parsed := struct {
		Version string `json:"version"`
	}{}
	front.Must(r.T, yaml.Unmarshal(meta, &parsed))
	config, err := yaml.YAMLToJSON(meta)
	front.Must(r.T, err)
	return r.Push(repository, OCIArtifact{
		ConfigMediaType: ChartConfigMediaType, Config: config, Layers: []OCILayer{{ChartLayerMediaType, packed}},
		Annotations: map[string]string{"org.opencontainers.image.version": parsed.Version},
	}, strings.ReplaceAll(parsed.Version, "+", "_"))
}

// chartMetadata returns Chart.yaml of a packed chart.
func chartMetadata(t testing.TB, packed []byte) []byte {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal("no Chart.yaml in the chart: ", err)
		}
		if path.Base(h.Name) == "Chart.yaml" && strings.Count(h.Name, "/") == 1 {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
}

// image is the artifact as the library has it.
func (a OCIArtifact) image(r *Registry) v1.Image {
	r.T.Helper()
	config := a.Config
	if config == nil {
		config = []byte("{}")
	}
	core := &rawArtifact{config: config, layers: map[v1.Hash]v1.Layer{}}
	describe := func(data []byte, mediaType string) v1.Descriptor {
		layer := static.NewLayer(data, types.MediaType(mediaType))
		digest, err := layer.Digest()
		front.Must(r.T, err)
		core.layers[digest] = layer
		return v1.Descriptor{MediaType: types.MediaType(mediaType), Digest: digest, Size: int64(len(data))}
	}
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: a.Annotations,
		Config: describe(config, a.ConfigMediaType), Layers: []v1.Descriptor{},
	}
	for _, l := range a.Layers {
		manifest.Layers = append(manifest.Layers, describe(l.Data, l.MediaType))
	}
	var err error
	core.manifest, err = json.Marshal(manifest)
	front.Must(r.T, err)
	image, err := partial.CompressedToImage(core)
	front.Must(r.T, err)
	return image
}

// rawArtifact implements partial.CompressedImageCore.
type rawArtifact struct {
	manifest, config []byte
	layers           map[v1.Hash]v1.Layer
}

func (a *rawArtifact) RawConfigFile() ([]byte, error)      { return a.config, nil }
func (a *rawArtifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a *rawArtifact) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *rawArtifact) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	return a.layers[h], nil
}
