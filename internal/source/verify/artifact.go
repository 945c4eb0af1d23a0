package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// maxSignatures bounds how many signatures of one artifact are looked at.
	maxSignatures = 64
	// maxEnvelope bounds a signature, in bytes; a larger one is not read. Attestations carry lists
	// of parts, so that they are large.
	maxEnvelope = 16 << 20
	// maxEnvelopes bounds those that one manifest names together: all of them are held at one time.
	maxEnvelopes = 2 * maxEnvelope
)

// errTooLarge says that a signature is larger than anybody's is, and errTooMuch that they are so together.
var (
	errTooLarge = errors.New("it is larger than 16 MB")
	errTooMuch  = errors.New("its signatures are larger than 32 MB together")
)

// artifact is what is verified, with the way to what is kept beside it.
type artifact struct {
	name       string
	repository name.Repository
	digest     v1.Hash
	puller     *remote.Puller
}

func newArtifact(req Request) (artifact, error) {
	a := artifact{name: cmp.Or(req.Name, req.Repository.Name()), repository: req.Repository, digest: req.Digest}
	var err error
	// Nothing is tried twice here: who asks knows when to ask again.
	once := []remote.Option{remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes()}
	// One puller asks for a token once.
	if a.puller, err = remote.NewPuller(append(once, req.Options...)...); err != nil {
		return a, refuse(Unusable, "the options of "+a.name, err, "")
	}
	return a, nil
}

func (a artifact) String() string { return a.name + "@" + a.digest.String() }

// descriptor returns the descriptor of the artifact's own manifest.
func (a artifact) descriptor(ctx context.Context) (v1.Descriptor, error) {
	got, err := a.puller.Get(ctx, a.repository.Digest(a.digest.String()))
	if err != nil {
		return v1.Descriptor{}, unreachable(ctx, a.String(), "read its manifest", err)
	}
	return got.Descriptor, nil
}

// emptyType is what registries tell of a referrer when they go by its config alone, which newer
// signatures have none of.
const emptyType = "application/vnd.oci.empty.v1+json"

// referrers lists what says that it belongs to the artifact, and is, or may be, of a type that is asked for.
func (a artifact) referrers(ctx context.Context, wanted func(artifactType string) bool) ([]v1.Descriptor, error) {
	index, err := remote.Referrers(a.repository.Digest(a.digest.String()), remote.Reuse(a.puller), remote.WithContext(ctx))
	if err != nil {
		return nil, unreachable(ctx, a.String(), "list its signatures", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, unreachable(ctx, a.String(), "list its signatures", err)
	}
	var found []v1.Descriptor
	for _, d := range manifest.Manifests {
		if d.ArtifactType == "" || d.ArtifactType == emptyType || wanted(d.ArtifactType) {
			found = append(found, d)
		}
	}
	return found[:min(len(found), maxSignatures)], nil
}

// manifest returns the manifest of a signature, and nil where the registry has none by that reference.
func (a artifact) manifest(ctx context.Context, ref name.Reference) (*v1.Manifest, error) {
	got, err := a.puller.Get(ctx, ref)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, unreachable(ctx, a.String(), "read the signature "+ref.Identifier(), err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(got.Manifest))
	if err != nil {
		return nil, refuse(Malformed, a.String(), fmt.Errorf("the signature %s has no manifest: %w", ref.Identifier(), err), "")
	}
	if len(manifest.Layers) > maxSignatures {
		manifest.Layers = manifest.Layers[:maxSignatures]
	}
	return manifest, nil
}

// blob returns the content of a part of a signature, which is as its digest says.
func (a artifact) blob(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	malformed := func(err error) error {
		return refuse(Malformed, a.String(), fmt.Errorf("the signature %s cannot be read: %w", d.Digest, err), "")
	}
	if d.Size > maxEnvelope {
		return nil, malformed(errTooLarge)
	}
	layer, err := a.puller.Layer(ctx, a.repository.Digest(d.Digest.String()))
	if err != nil {
		return nil, unreachable(ctx, a.String(), "read the signature "+d.Digest.String(), err)
	}
	content, err := layer.Compressed()
	if err != nil {
		return nil, unreachable(ctx, a.String(), "read the signature "+d.Digest.String(), err)
	}
	defer func() { _ = content.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(content, maxEnvelope+1))
	if err != nil {
		return nil, unreachable(ctx, a.String(), "read the signature "+d.Digest.String(), err)
	}
	if len(data) > maxEnvelope {
		return nil, malformed(errTooLarge)
	}
	return data, nil
}

// names returns the keys of a Secret's data that end in one of the suffixes, sorted.
func names(data map[string][]byte, suffixes ...string) []string {
	var found []string
	for key := range data {
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(key, s) }) {
			found = append(found, key)
		}
	}
	slices.Sort(found)
	return found
}
