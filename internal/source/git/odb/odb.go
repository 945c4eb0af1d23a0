// Package odb is the room that reads objects from the packs of a Git
// repository, with go-git's readers of packs and indexes: in place, by as many
// goroutines as like to, so that a repository of any size costs next to no memory
// while nobody reads it. It never writes; packs come from and are rewritten by the
// git executable. Loose objects are not read, because the store above only
// ever makes packs.
package odb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// Hash is the name of an object.
type Hash = plumbing.Hash

// ParseHash reads 40 hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	if !plumbing.IsHash(s) || len(s) != 40 {
		return Hash{}, fmt.Errorf("%q is not a SHA-1 of 40 hexadecimal digits", s)
	}
	return plumbing.NewHash(s), nil
}

// Type is the type of an object.
type Type = plumbing.ObjectType

// The types of objects.
const (
	Commit = plumbing.CommitObject
	Tree   = plumbing.TreeObject
	Blob   = plumbing.BlobObject
	Tag    = plumbing.TagObject
)

// Cache keeps the objects that were used last, up to a number of bytes. Neighbouring
// trees share delta bases, so a small cache saves most of the inflating.
type Cache = cache.ObjectLRU

// NewCache returns a cache that holds up to limit bytes.
func NewCache(limit int) *Cache { return cache.NewObjectLRU(cache.FileSize(limit)) }

// ErrNotFound says that no pack holds the object.
var ErrNotFound = errors.New("object not found")

// ErrCorrupt says that what is on disk is not what Git wrote there.
var ErrCorrupt = errors.New("the repository on disk is damaged")

// DB reads the packs of one repository. It is safe for use by many goroutines.
type DB struct {
	dir   string
	bases *Cache

	mu    sync.RWMutex // guards packs
	packs []*pack
}

// Open opens the packs below the bare repository at dir. The cache may be
// shared with other repositories.
func Open(dir string, cache *Cache) (*DB, error) {
	db := &DB{dir: filepath.Join(dir, "objects", "pack"), bases: cache}
	if err := db.Rescan(); err != nil {
		return nil, err
	}
	return db, nil
}

// Rescan takes notice of packs that came and went. Packs that went are let go
// of only when the last reader is done: their files are closed by the garbage
// collector, so that a read that is under way is never disturbed.
func (db *DB) Rescan() error {
	names, err := filepath.Glob(filepath.Join(db.dir, "pack-*.idx"))
	if err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	have := make(map[string]*pack, len(db.packs))
	for _, p := range db.packs {
		have[p.base] = p
	}
	packs := make([]*pack, 0, len(names))
	for _, name := range names {
		base := strings.TrimSuffix(name, ".idx")
		p := have[base]
		if p == nil {
			if p, err = openPack(base); err != nil {
				return err
			}
		}
		packs = append(packs, p)
	}
	db.packs = packs
	return nil
}

// Packs returns how many packs there are and how many bytes they take.
func (db *DB) Packs() (count int, bytes int64) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	for _, p := range db.packs {
		bytes += p.size
	}
	return len(db.packs), bytes
}

// Has reports whether the object is there.
func (db *DB) Has(h Hash) bool {
	_, err := db.find(h)
	return err == nil
}

// place is where an object is.
type place struct {
	pack  *pack
	index *idxfile.MemoryIndex
	off   int64
}

func (db *DB) find(h Hash) (place, error) {
	db.mu.RLock()
	packs := db.packs
	db.mu.RUnlock()
	for _, p := range packs {
		off, index, err := p.offset(h)
		if err == nil {
			return place{p, index, off}, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return place{}, err
		}
	}
	return place{}, fmt.Errorf("%s: %w", h, ErrNotFound)
}

// Size returns the size in bytes of an object without reading its content.
func (db *DB) Size(h Hash) (int64, error) {
	at, err := db.find(h)
	if err != nil {
		return 0, err
	}
	size, err := at.pack.reader(at.index, db.bases).GetSizeByOffset(at.off)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", h, ErrCorrupt, err)
	}
	return size, nil
}

// Read returns an object, after checking that its content has its name. The
// content is the caller's.
func (db *DB) Read(h Hash) (Type, []byte, error) {
	at, err := db.find(h)
	if err != nil {
		return 0, nil, err
	}
	obj, err := at.pack.reader(at.index, db.bases).Get(h)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %w", h, ErrCorrupt, err)
	}
	if obj.Hash() != h {
		return 0, nil, fmt.Errorf("%s: %w: its content has another name", h, ErrCorrupt)
	}
	r, err := obj.Reader()
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %w", h, ErrCorrupt, err)
	}
	data := make([]byte, obj.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %w", h, ErrCorrupt, err)
	}
	return obj.Type(), data, r.Close()
}

// RemoveLeftovers removes the temporary files of a git process that was killed.
func RemoveLeftovers(dir string) error {
	for _, pattern := range []string{"objects/pack/tmp_*", "objects/pack/.tmp-*", "objects/tmp_*", "*.lock"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
