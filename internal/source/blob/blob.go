// Package blob is the room that keeps downloaded content on disk, each once, under its
// digest, such as layers of registries. Nothing is kept whose bytes do not
// have the digest that was promised, and what has not been used for longest goes when there
// is too much. All of it may be lost: it is downloaded again.
package blob

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/disk"
)

// The defaults of Options.
const (
	DefaultMaxBytes    = 4 << 30
	DefaultMaxBlobSize = 256 << 20
)

// Options are the settings of a Store; the zero value is sound.
type Options struct {
	// MaxBytes is how much is kept in all, and MaxBlobSize the size of the largest one, in bytes; 0
	// means the default.
	MaxBytes, MaxBlobSize int64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Store is a folder of blobs. It is safe for use by many goroutines; one Store at a time
// may use the folder.
type Store struct {
	dir   string
	opts  Options
	turns disk.Turns // at downloads, by digest

	mu    sync.Mutex
	held  map[string]*held // guarded by mu; by digest
	bytes int64            // guarded by mu
}

type held struct {
	size int64
	used time.Time
	// from holds the names of those who sent it.
	from map[string]bool
}

// Blob is one piece of content.
type Blob struct {
	// Digest is "sha256:<hex>" or "sha512:<hex>".
	Digest string
	// Size is its length in bytes.
	Size int64
	path string
}

// Open reads the blob. It fails with an error that matches fs.ErrNotExist when the blob has
// made room for others meanwhile.
func (b Blob) Open() (*os.File, error) { return os.Open(b.path) }

// Bytes reads all of it; see Open.
func (b Blob) Bytes() ([]byte, error) { return os.ReadFile(b.path) }

// Promise is what a blob has to be.
type Promise struct {
	// Digest is what it must have, as "sha256:<hex>" or "sha512:<hex>".
	Digest string
	// Size is its length in bytes, or 0 if nobody told.
	Size int64
	// Object names it in errors.
	Object string
	// From names who sends it. What somebody else sent is not taken for it: to know a digest is no
	// right to the content, and who sends it has it.
	From string
}

// Open opens the store in a folder, which it makes if need be.
func Open(dir string, opts Options) (*Store, error) {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.MaxBlobSize == 0 {
		opts.MaxBlobSize = DefaultMaxBlobSize
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{dir: dir, opts: opts, held: map[string]*held{}}
	if err := s.load(); err != nil {
		return nil, &failure.Error{Op: "open blob store", Object: dir, Kind: failure.Invalid, Err: err, Remedy: "give a data folder that can be written to"}
	}
	return s, nil
}

// load finds what is there, and removes what was being written when the last process ended.
func (s *Store) load() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), fromSuffix) {
			continue
		}
		digest := strings.Replace(e.Name(), "-", ":", 1)
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if _, _, err := hasher(digest); err != nil {
			_ = os.Remove(filepath.Join(s.dir, e.Name()))
			continue
		}
		s.held[digest] = &held{info.Size(), info.ModTime(), s.readFrom(digest)}
		s.bytes += info.Size()
	}
	s.makeRoom("")
	return nil
}

func (s *Store) path(digest string) string {
	return filepath.Join(s.dir, strings.Replace(digest, ":", "-", 1))
}

// Get returns the blob if it is here, whoever sent it.
func (s *Store) Get(digest string) (Blob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(digest)
}

// sent returns the blob if it is here, and the one who promises it has sent it before.
func (s *Store) sent(p Promise) (Blob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[p.Digest]; h == nil || !h.from[p.From] {
		return Blob{}, false
	}
	return s.get(p.Digest)
}

// get is Get. The caller holds mu.
func (s *Store) get(digest string) (Blob, bool) {
	h := s.held[digest]
	if h == nil {
		return Blob{}, false
	}
	path := s.path(digest)
	info, err := os.Lstat(path)
	if err != nil || info.Size() != h.size { // somebody else's hand
		s.forget(digest)
		return Blob{}, false
	}
	h.used = s.opts.Now()
	_ = os.Chtimes(path, time.Time{}, h.used) // what is known of it after a restart
	return Blob{Digest: digest, Size: h.size, path: path}, true
}

// Fetch returns the blob, which download opens where it is not here yet. Of many that want
// one blob at a time, one downloads it. Errors that are not download's own are of kind
// failure.Invalid, for a blob that is too large or a digest that is none, and Unavailable, for
// bytes that are not what was promised.
func (s *Store) Fetch(ctx context.Context, p Promise, download func(context.Context) (io.ReadCloser, error)) (Blob, error) {
	if b, ok := s.sent(p); ok {
		return b, nil
	}
	if _, _, err := hasher(p.Digest); err != nil {
		return Blob{}, &failure.Error{Op: "fetch", Object: p.Object, Kind: failure.Invalid, Err: err, Remedy: "use a digest of sha256 or sha512"}
	}
	if p.Size > s.opts.MaxBlobSize {
		return Blob{}, s.tooLarge(p)
	}
	done, err := s.turns.Take(ctx, p.Digest)
	if err != nil {
		return Blob{}, err
	}
	defer done()
	if b, ok := s.sent(p); ok {
		return b, nil
	}
	r, err := download(ctx)
	if err != nil {
		return Blob{}, err
	}
	defer func() { _ = r.Close() }()
	return s.write(p, r)
}

// makeRoom removes what has not been used for longest while there is too much, but not the one that
// is wanted now. The caller holds mu.
func (s *Store) makeRoom(wanted string) {
	if s.bytes <= s.opts.MaxBytes {
		return
	}
	var digests []string
	for digest := range s.held {
		if digest != wanted {
			digests = append(digests, digest)
		}
	}
	slices.SortFunc(digests, func(a, b string) int { return s.held[a].used.Compare(s.held[b].used) })
	for _, digest := range digests {
		if s.bytes <= s.opts.MaxBytes {
			return
		}
		if err := os.Remove(s.path(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		s.forget(digest)
	}
}

// forget takes a blob that is gone off the list. The caller holds mu.
func (s *Store) forget(digest string) {
	_ = os.Remove(s.path(digest) + fromSuffix)
	s.bytes -= s.held[digest].size
	delete(s.held, digest)
}

// hasher returns what computes digests of the kind of one, and the name of that kind.
func hasher(digest string) (hash.Hash, string, error) {
	algorithm, text, _ := strings.Cut(digest, ":")
	var h hash.Hash
	switch algorithm {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return nil, "", fmt.Errorf("%q is no digest of sha256 or sha512", digest)
	}
	if sum, err := hex.DecodeString(text); err != nil || len(sum) != h.Size() || text != strings.ToLower(text) {
		return nil, "", fmt.Errorf("%q is no digest", digest)
	}
	return h, algorithm, nil
}
