// Package odb is the room that reads objects from the packs of a Git
// repository: file by file with positional reads, so that a repository of any
// size costs next to no memory while nobody reads it. It never writes; packs come
// from and are rewritten by the git executable. Loose objects are not read,
// because the store above only ever makes packs.
package odb

import (
	"crypto/sha1" //nolint:gosec // Git names objects by SHA-1; this is identity, not secrecy.
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Hash is the name of an object.
type Hash [20]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h names nothing.
func (h Hash) IsZero() bool { return h == Hash{} }

// ParseHash reads 40 hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 40 {
		return h, fmt.Errorf("%q is not a SHA-1 of 40 hexadecimal digits", s)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fmt.Errorf("%q is not a SHA-1 of 40 hexadecimal digits", s)
	}
	return h, nil
}

// Type is the type of an object.
type Type byte

// The types of objects, with the numbers that packs give them.
const (
	Commit Type = 1
	Tree   Type = 2
	Blob   Type = 3
	Tag    Type = 4

	offsetDelta Type = 6
	refDelta    Type = 7
)

func (t Type) String() string {
	switch t {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	case Tag:
		return "tag"
	default:
		return fmt.Sprintf("type %d", byte(t))
	}
}

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
	_, _, err := db.find(h)
	return err == nil
}

func (db *DB) find(h Hash) (*pack, int64, error) {
	db.mu.RLock()
	packs := db.packs
	db.mu.RUnlock()
	// The newest knowledge is asked for most, and Glob's order says nothing about
	// age, so the order does not matter; a miss costs no read in a small pack.
	for _, p := range packs {
		off, err := p.offset(h)
		if err == nil {
			return p, off, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, 0, err
		}
	}
	return nil, 0, fmt.Errorf("%s: %w", h, ErrNotFound)
}

// Size returns the type and the size in bytes of an object without reading all of it.
func (db *DB) Size(h Hash) (Type, int64, error) {
	p, off, err := db.find(h)
	if err != nil {
		return 0, 0, err
	}
	return db.sizeAt(p, off)
}

// Read returns an object, after checking that its content has its name.
func (db *DB) Read(h Hash) (Type, []byte, error) {
	p, off, err := db.find(h)
	if err != nil {
		return 0, nil, err
	}
	typ, data, err := db.readAt(p, off)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", h, err)
	}
	sum := sha1.New() //nolint:gosec // see above
	fmt.Fprintf(sum, "%s %d\x00", typ, len(data))
	sum.Write(data)
	if Hash(sum.Sum(nil)) != h {
		return 0, nil, fmt.Errorf("%s: %w: its content has another name", h, ErrCorrupt)
	}
	return typ, data, nil
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
