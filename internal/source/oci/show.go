package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"weak"

	"golang.org/x/sync/singleflight"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
	"github.com/bowline-dev/bowline/internal/source/blob"
)

// content is what is in a layer, as the ignore rules leave it.
type content struct {
	source.Artifact
	// file holds the layer open for as long as the content is in use, even if it makes room for
	// others on disk.
	file *os.File
}

// trees holds the contents that somebody uses, so that many with one layer read it once.
type trees struct {
	reading singleflight.Group

	mu     sync.Mutex
	latest map[treeKey]weak.Pointer[content] // guarded by mu
}

// treeKey: equal keys, equal files.
type treeKey struct {
	blob, ignore  string
	ignored, copy bool
}

func keyOf(req Request, have record) treeKey {
	k := treeKey{blob: have.Blob, copy: have.Layer.Copy}
	if req.Ignore != nil && !k.copy {
		k.ignored, k.ignore = true, *req.Ignore
	}
	return k
}

// show makes an artifact of a layer that is on disk.
func (s *Store) show(ctx context.Context, req Request, have record) (source.Artifact, error) {
	key := keyOf(req, have)
	c, err := s.trees.get(ctx, key, func(ctx context.Context) (*content, error) { return s.read(ctx, req, have) })
	if err != nil {
		return source.Artifact{}, at(Reading, err)
	}
	a := c.Artifact
	a.Revision, a.Metadata = have.Revision, have.Metadata
	a.Tree = shared{a.Tree, c}
	return a, nil
}

// shared is a tree that keeps its content from being forgotten.
type shared struct {
	source.Tree
	of *content
}

// Below returns the digest of all that is in a folder, where the tree knows it.
func (t shared) Below(name string) (digest string, closed bool, err error) {
	if s, ok := t.Tree.(interface {
		Below(name string) (string, bool, error)
	}); ok {
		return s.Below(name)
	}
	return "", false, nil
}

// get returns the content of a key, which is read if nobody uses it. Of many who want it at a time, one reads it.
func (t *trees) get(ctx context.Context, key treeKey, read func(context.Context) (*content, error)) (*content, error) {
	got, err, _ := t.reading.Do(fmt.Sprintf("%#v", key), func() (any, error) {
		if c := t.at(key); c != nil {
			return c, nil
		}
		// Who waits must not suffer from the one that reads being given up; the limits bound it.
		c, err := read(context.WithoutCancel(ctx))
		if err == nil {
			t.put(key, c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	return got.(*content), nil
}

func (t *trees) at(key treeKey) *content {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest[key].Value()
}

func (t *trees) put(key treeKey, c *content) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest == nil {
		t.latest = map[treeKey]weak.Pointer[content]{}
	}
	for k, p := range t.latest {
		if p.Value() == nil {
			delete(t.latest, k)
		}
	}
	t.latest[key] = weak.Make(c)
}

// read reads the files of a layer.
func (s *Store) read(ctx context.Context, req Request, have record) (*content, error) {
	b, ok := s.opts.Blobs.Get(have.Blob)
	if !ok {
		return nil, gone(have, fs.ErrNotExist)
	}
	f, err := b.Open()
	if err != nil {
		return nil, gone(have, err)
	}
	if have.Layer.Copy {
		return s.packed(ctx, b, f), nil
	}
	defer func() { _ = f.Close() }()
	a, err := archive.ReadWith(ctx, f, archive.Options{Limits: s.opts.Limits, SkipLinks: true, Ignored: true, Ignore: req.Ignore})
	if err != nil {
		return nil, unreadable(have, err)
	}
	return &content{Artifact: a}, nil
}

// packed is a layer that is handed on as it is. What is no archive of files is handed on, too: who wants
// files of it is told that there are none.
func (s *Store) packed(ctx context.Context, b blob.Blob, f *os.File) *content {
	section := func() *io.SectionReader { return io.NewSectionReader(f, 0, b.Size) }
	a, err := archive.ReadWith(ctx, section(), archive.Options{Limits: s.opts.Limits, SkipLinks: true})
	if err != nil {
		a.Tree = noFiles{fmt.Errorf("layer %s: %w", b.Digest, err)}
	}
	a.Digest = b.Digest
	a.Packed = &source.Packed{Digest: b.Digest, Size: b.Size, Open: func() (io.ReadCloser, error) { return io.NopCloser(section()), nil }}
	return &content{Artifact: a, file: f}
}

func gone(have record, err error) error {
	return &failure.Error{Op: "read", Object: have.Revision, Kind: failure.Unavailable, Err: err, Remedy: "it is fetched again"}
}

func unreadable(have record, err error) error {
	var inner *failure.Error
	if errors.As(err, &inner) {
		return &failure.Error{Op: "extract layer", Object: have.Blob + " of " + have.URL, Kind: inner.Kind, Err: inner,
			Remedy: "or set spec.layerSelector to the layer that is meant, with operation copy for what is no .tar.gz"}
	}
	return err
}

// noFiles is the tree of what is no archive.
type noFiles struct{ err error }

func (t noFiles) Open(string) (fs.File, error)          { return nil, t.err }
func (t noFiles) ReadDir(string) ([]fs.DirEntry, error) { return nil, t.err }
func (t noFiles) ReadFile(string) ([]byte, error)       { return nil, t.err }
func (t noFiles) Stat(string) (fs.FileInfo, error)      { return nil, t.err }
func (t noFiles) Hash(string) (string, error)           { return "", t.err }
