package chart

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
	"weak"

	"golang.org/x/sync/singleflight"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/disk"
)

// Store keeps the archives of charts on disk, each once, under its digest. Of what is in them nothing
// stays in memory that nobody is reading. It is safe for use by many goroutines.
//
// Who may have a chart is not decided here: whoever hands out one by its digest has to
// know that it was that one's repository that gave it.
type Store struct {
	dir     string
	reading singleflight.Group

	mu sync.Mutex
	// live holds what is being read, for as long as somebody does; guarded by mu.
	live map[string]weak.Pointer[Chart]
}

// NewStore opens a store in a folder, which one store at a time may use.
func NewStore(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, givenFolder), 0o700); err != nil {
		return nil, &failure.Error{Op: "open chart store", Object: dir, Kind: failure.Invalid, Err: err, Remedy: "give a data folder that can be written to"}
	}
	leftOver, err := filepath.Glob(filepath.Join(dir, disk.New+"*"))
	for _, name := range leftOver {
		err = errors.Join(err, os.Remove(name))
	}
	return &Store{dir: dir, live: map[string]weak.Pointer[Chart]{}}, err
}

// Put checks that an archive is a chart and keeps it.
func (s *Store) Put(data []byte) (Chart, error) {
	c, err := Read(data)
	if err != nil {
		return Chart{}, err
	}
	name, err := s.file(c.Digest)
	if err != nil {
		return Chart{}, err
	}
	if old, err := os.ReadFile(name); err != nil || !bytes.Equal(old, data) {
		if err := disk.WriteFile(name, data); err != nil {
			return Chart{}, err
		}
	} else {
		_ = os.Chtimes(name, time.Time{}, time.Now()) // nobody was given it yet, and it is not to be tidied away meanwhile
	}
	return s.shared(c), nil
}

// Get returns a chart that is in the store; a failure of kind NotFound where it is not.
func (s *Store) Get(digest string) (Chart, error) {
	c, err := s.load(digest)
	if err != nil {
		return Chart{}, err
	}
	return s.shared(*c), nil
}

// shared is the chart with a tree that reads the archive only when it is looked at.
func (s *Store) shared(c Chart) Chart {
	s.mu.Lock()
	if s.live[c.Digest].Value() == nil {
		s.live[c.Digest] = weak.Make(&c)
	}
	s.mu.Unlock()
	out := c
	out.Tree = &tree{store: s, digest: c.Digest}
	return out
}

// Open opens the archive of a chart.
func (s *Store) Open(digest string) (*os.File, error) {
	name, err := s.file(digest)
	if err != nil {
		return nil, err
	}
	return os.Open(name)
}

// Bytes returns the archive of a chart.
func (s *Store) Bytes(digest string) ([]byte, error) {
	name, err := s.file(digest)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(name)
}

var isDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func (s *Store) file(digest string) (string, error) {
	if !isDigest.MatchString(digest) {
		return "", &failure.Error{Op: "find chart", Object: digest, Kind: failure.Invalid, Err: errors.New("this is no SHA-256 digest")}
	}
	return filepath.Join(s.dir, strings.TrimPrefix(digest, "sha256:")+".tgz"), nil
}

// load returns an archive that somebody reads, or reads it, once for all who ask.
func (s *Store) load(digest string) (*Chart, error) {
	name, err := s.file(digest)
	if err != nil {
		return nil, err
	}
	if c := s.alive(digest); c != nil {
		return c, nil
	}
	got, err, _ := s.reading.Do(digest, func() (any, error) {
		if c := s.alive(digest); c != nil {
			return c, nil
		}
		c, err := readFile(name, digest)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.live[digest] = weak.Make(c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	return got.(*Chart), nil
}

func (s *Store) alive(digest string) *Chart {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[digest].Value()
}

func readFile(name, digest string) (*Chart, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &failure.Error{Op: "find chart", Object: digest, Kind: failure.NotFound, Err: fmt.Errorf("it is not in the data folder: %w", err)}
	}
	if err != nil {
		return nil, &failure.Error{Op: "read chart", Object: digest, Kind: failure.Unavailable, Err: err, Remedy: "check the data folder"}
	}
	c, err := Read(data)
	if err == nil && c.Digest != digest {
		err = errors.New("its content is another one now")
	}
	if err != nil {
		return nil, &failure.Error{Op: "read chart", Object: digest, Kind: failure.NotFound, Err: fmt.Errorf("the copy in the data folder is damaged: %w", err)}
	}
	return &c, nil
}

// givenFolder holds what each asker was given last.
const givenFolder = "given"

// Given is what somebody was given.
type Given struct {
	Digest, Revision, Name string
	ValuesFiles            []string `json:",omitempty"`
	Packaged               bool     `json:",omitempty"`
	// Manifest is the digest of the manifest by which a registry has the chart, which is what people sign; ""
	// where it is from elsewhere.
	Manifest string `json:",omitempty"`
	// For tells which wish it answers: another one of the same asker is not answered by it, however alike the
	// versions.
	For int64 `json:",omitempty"`
}

// Give notes what somebody was given, so that it can be recalled.
func (s *Store) Give(whom string, what Given) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	name := s.givenFile(whom)
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return disk.WriteFile(name, text)
}

// Recall returns what somebody was given last; a failure of kind NotFound where that is not at hand. The
// archive is not read: of the chart there are the digest, the size and the tree.
func (s *Store) Recall(whom string) (Given, Chart, error) {
	var what Given
	text, err := os.ReadFile(s.givenFile(whom))
	if err == nil {
		err = json.Unmarshal(text, &what)
	}
	if err != nil {
		return Given{}, Chart{}, &failure.Error{Op: "recall chart", Kind: failure.NotFound, Err: err}
	}
	name, err := s.file(what.Digest)
	if err != nil {
		return Given{}, Chart{}, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return Given{}, Chart{}, &failure.Error{Op: "recall chart", Object: what.Digest, Kind: failure.NotFound, Err: err}
	}
	return what, Chart{Digest: what.Digest, Size: info.Size(), Tree: &tree{store: s, digest: what.Digest}}, nil
}

// Forget drops the note of what somebody was given who is gone.
func (s *Store) Forget(whom string) { _ = os.Remove(s.givenFile(whom)) }

func (s *Store) givenFile(whom string) string {
	sum := sha256.Sum256([]byte(whom))
	return filepath.Join(s.dir, givenFolder, hex.EncodeToString(sum[:]))
}

// Sweep removes the archives that nobody uses and that are older than an age.
func (s *Store) Sweep(now time.Time, age time.Duration, used func(digest string) bool) error {
	s.mu.Lock()
	for digest, p := range s.live {
		if p.Value() == nil {
			delete(s.live, digest)
		}
	}
	s.mu.Unlock()
	return disk.Sweep(s.dir, now, age, func(name string) bool {
		return used("sha256:" + strings.TrimSuffix(name, ".tgz"))
	})
}

// tree is what is in an archive of a store. It holds nothing of it.
type tree struct {
	store  *Store
	digest string
}

var _ source.Tree = (*tree)(nil)

// Open implements fs.FS.
func (t *tree) Open(name string) (fs.File, error) {
	c, err := t.store.load(t.digest)
	if err != nil {
		return nil, err
	}
	return c.Tree.Open(name)
}

// ReadDir implements fs.ReadDirFS.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	c, err := t.store.load(t.digest)
	if err != nil {
		return nil, err
	}
	return c.Tree.ReadDir(name)
}

// ReadFile implements fs.ReadFileFS.
func (t *tree) ReadFile(name string) ([]byte, error) {
	c, err := t.store.load(t.digest)
	if err != nil {
		return nil, err
	}
	return c.Tree.ReadFile(name)
}

// Stat implements fs.StatFS.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	c, err := t.store.load(t.digest)
	if err != nil {
		return nil, err
	}
	return c.Tree.Stat(name)
}

// Hash implements source.Tree.
func (t *tree) Hash(name string) (string, error) {
	c, err := t.store.load(t.digest)
	if err != nil {
		return "", err
	}
	return c.Tree.Hash(name)
}
