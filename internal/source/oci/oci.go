// Package oci is the room that fetches artifacts from OCI registries and shows a layer of
// them as a source.Artifact. A layer is downloaded once and kept by its digest; a tree
// is read from it without being unpacked to disk, once for all who want the same files.
package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
	"github.com/bowline-dev/bowline/internal/source/blob"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// DefaultTag is fetched where nothing is said of tags.
const DefaultTag = "latest"

// Options are the settings of a Store.
type Options struct {
	// Dir is the folder for what has to be known after a restart; one Store at a time may use it.
	Dir string
	// Client reaches the registries, and Blobs is where it keeps layers.
	Client *registry.Client
	Blobs  *blob.Store
	// Limits bound what one layer may take into memory; where the size of one file is 0, that of all
	// together counts.
	Limits archive.Limits
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Ref says which artifact of a repository to fetch: by digest, else by a range of versions, else by
// tag. The zero value is DefaultTag.
type Ref struct {
	Digest string
	// SemVer is a range of versions, SemVerFilter a regular expression that tags have to match besides.
	SemVer, SemVerFilter string
	Tag                  string
}

// Layer says which layer of an artifact to take.
type Layer struct {
	// MediaType is that of the layer; "" takes the first one.
	MediaType string
	// Copy hands the layer on as it is; else its files are what counts, and ignore rules apply to them.
	Copy bool
}

// Request says what to fetch.
type Request struct {
	// URL is "oci://host/path".
	URL    string
	Ref    Ref
	Layer  Layer
	Access registry.Access
	// Ignore holds patterns of files to leave out; see snapshot.Options.
	Ignore *string
	// Timeout bounds the fetch; registry.DefaultTimeout when 0.
	Timeout time.Duration
	// Verify, when set, is asked before anything is pulled, and says who vouches for the artifact.
	Verify func(ctx context.Context, r *registry.Repository, digest string) (by string, err error)
	// For identifies who asks, for as long as there is such a one: what it has is not pulled again, and
	// can be recalled for it.
	For string
}

// Stage is a part of a fetch.
type Stage string

// The stages of a fetch, in their order.
const (
	// Addressing: the URL is no address of a repository.
	Addressing Stage = "Addressing"
	// Choosing: which tag is wanted.
	Choosing Stage = "Choosing"
	// Pulling: the digest of the tag, the manifest and the layer.
	Pulling Stage = "Pulling"
	// Verifying: who vouches for it.
	Verifying Stage = "Verifying"
	// Reading: what is in the layer.
	Reading Stage = "Reading"
)

// Error says in which stage a fetch failed.
type Error struct {
	Stage Stage
	Err   error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *Error) Unwrap() error { return e.Err }

func at(stage Stage, err error) error {
	if err == nil {
		return nil
	}
	return &Error{stage, err}
}

// Store fetches artifacts. It is safe for use by many goroutines.
type Store struct {
	opts  Options
	trees trees

	mu     sync.Mutex
	has    map[string]record // guarded by mu; by who asks
	tidied time.Time         // guarded by mu
}

// New opens a store.
func New(opts Options) (*Store, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Limits.MaxBytes == 0 {
		opts.Limits.MaxBytes = archive.DefaultMaxBytes
	}
	if opts.Limits.MaxFileSize == 0 {
		opts.Limits.MaxFileSize = opts.Limits.MaxBytes
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, &failure.Error{Op: "open OCI store", Object: opts.Dir, Kind: failure.Invalid, Err: err, Remedy: "give a data folder that can be written to"}
	}
	s := &Store{opts: opts, has: map[string]record{}, tidied: opts.Now()}
	s.dropPartial()
	return s, nil
}

// Fetch brings the artifact that a request names up to date with the registry and returns it. When
// nothing is new, that costs the question which digest the tag has; by digest it costs nothing. Errors are of type Error; what
// was fetched before stays readable whatever happens.
func (s *Store) Fetch(ctx context.Context, req Request) (source.Artifact, error) {
	ctx, cancel := registry.WithTimeout(ctx, req.Timeout)
	defer cancel()
	repo, err := s.opts.Client.Repository(req.URL, req.Access)
	if err != nil {
		stage := Pulling
		if errors.Is(err, registry.ErrAddress) {
			stage = Addressing
		}
		return source.Artifact{}, at(stage, err)
	}
	digest, revision, err := resolve(ctx, repo, req)
	if err != nil {
		return source.Artifact{}, err
	}
	verified := ""
	if req.Verify != nil {
		if verified, err = req.Verify(ctx, repo, digest); err != nil {
			return source.Artifact{}, at(Verifying, err)
		}
	}
	have, err := s.pull(ctx, repo, req, digest, revision)
	if err != nil {
		return source.Artifact{}, err
	}
	artifact, err := s.show(ctx, req, have)
	artifact.Verified = verified
	return artifact, err
}

// resolve finds the digest that is wanted, and what to call it.
func resolve(ctx context.Context, repo *registry.Repository, req Request) (digest, revision string, err error) {
	tag := req.Ref.Tag
	switch {
	case req.Ref.Digest != "":
		return req.Ref.Digest, req.Ref.Digest, nil
	case req.Ref.SemVer != "":
		tags, err := repo.Tags(ctx)
		if err != nil {
			return "", "", at(Choosing, err)
		}
		if tag, err = registry.Newest(tags, req.Ref.SemVer, req.Ref.SemVerFilter, req.Layer.MediaType == registry.ChartLayer); err != nil {
			return "", "", at(Choosing, fmt.Errorf("%s: %w", repo, err))
		}
	case tag == "":
		tag = DefaultTag
	}
	digest, err = repo.Resolve(ctx, tag)
	return digest, tag + "@" + digest, at(Pulling, err)
}

// pull makes sure that the layer of an artifact is on disk, unless the one who asks has it.
func (s *Store) pull(ctx context.Context, repo *registry.Repository, req Request, digest, revision string) (record, error) {
	s.mu.Lock()
	have, ok := s.has[req.For]
	s.mu.Unlock()
	if ok && have.is(req, digest) {
		if _, ok := s.opts.Blobs.Get(have.Blob); ok {
			have.Revision = revision
			return have, s.keep(req.For, have)
		}
	}
	manifest, err := repo.Manifest(ctx, digest)
	if err != nil {
		return record{}, at(Pulling, err)
	}
	layer, err := choose(repo, manifest, req.Layer.MediaType)
	if err != nil {
		return record{}, at(Reading, err)
	}
	if _, err := repo.Blob(ctx, layer); err != nil {
		return record{}, at(Pulling, err)
	}
	have = record{URL: req.URL, Revision: revision, Digest: digest, Layer: req.Layer, Blob: layer.Digest, Metadata: manifest.Annotations}
	return have, s.keep(req.For, have)
}

// choose finds the layer that is wanted.
func choose(repo *registry.Repository, m *registry.Manifest, mediaType string) (registry.Layer, error) {
	fail := func(err error, remedy string) error {
		return &failure.Error{Op: "read", Object: repo.String() + "@" + m.Digest, Kind: failure.Invalid, Err: err, Remedy: remedy}
	}
	if len(m.Layers) == 0 {
		return registry.Layer{}, fail(errors.New("the artifact has no layers"), "push one that has")
	}
	if mediaType == "" {
		return m.Layers[0], nil
	}
	var types []string
	for _, l := range m.Layers {
		if l.MediaType == mediaType {
			return l, nil
		}
		types = append(types, l.MediaType)
	}
	return registry.Layer{}, fail(fmt.Errorf("no layer has the media type %q: they have %q", mediaType, types), "correct spec.layerSelector.mediaType")
}

// Recall returns the revision that Fetch returned last for the same For, perhaps to another process, from
// the disk alone. It is an error of kind NotFound when that was another revision or layer, or the layer made room
// for others.
func (s *Store) Recall(ctx context.Context, req Request, revision string) (source.Artifact, error) {
	have, ok := s.recorded(req.For)
	if ok {
		_, ok = s.opts.Blobs.Get(have.Blob)
	}
	if !ok || have.Revision != revision || have.URL != req.URL || have.Layer != req.Layer {
		return source.Artifact{}, &failure.Error{Op: "recall", Object: req.URL + " at " + revision, Kind: failure.NotFound,
			Err: errors.New("it is not in the data folder"), Remedy: "it is fetched again when the registry can be reached"}
	}
	s.mu.Lock()
	s.has[req.For] = have
	s.touch(req.For)
	s.mu.Unlock()
	return s.show(ctx, req, have)
}

// Forget drops what is known of one who is gone.
func (s *Store) Forget(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, who)
	_ = os.Remove(s.file(who))
}

// file is where what one has is recorded.
func (s *Store) file(who string) string {
	return filepath.Join(s.opts.Dir, nameOf(who)+".json")
}
