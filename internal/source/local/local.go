// Package local is the room that shows a folder of this machine as a
// source.Tree, so that what is not committed yet can be built and compared. It never reads
// outside of the folder, whatever symbolic links say.
package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// Options change what is shown; see snapshot.Options.
type Options struct {
	Ignore      *string
	MaxFileSize int64
}

// Tree is a folder. Its content is taken to stay as it is while the tree is in
// use: what was read once may be answered from memory.
type Tree struct {
	*snapshot.Tree
	root *os.Root
}

var _ source.Tree = (*Tree)(nil)

// Open shows the folder at dir. Close lets go of it.
func Open(dir string, opts Options) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		kind := failure.Invalid
		if errors.Is(err, fs.ErrNotExist) {
			kind = failure.NotFound
		}
		return nil, &failure.Error{Op: "open folder", Object: dir, Kind: kind, Err: err, Remedy: "give the path of a folder that can be read"}
	}
	tree, err := snapshot.New(&folder{root: root, hashes: map[string]string{}}, ".", snapshot.Options{Ignore: opts.Ignore, MaxFileSize: opts.MaxFileSize})
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return &Tree{Tree: tree, root: root}, nil
}

// Close lets go of the folder.
func (t *Tree) Close() error { return t.root.Close() }

// Artifact returns the folder as an artifact. Its revision has the digest in place
// of a commit. Everything in the folder is read for it.
func (t *Tree) Artifact() (source.Artifact, error) {
	digest, err := t.Digest()
	if err != nil {
		return source.Artifact{}, err
	}
	return source.Artifact{Revision: "local@" + digest, Digest: digest, Tree: t}, nil
}

// folder is a snapshot.Backend; an ID is a path. Links are not followed here: a
// path that the snapshot asks for has none in it, and os.Root refuses any that
// lead out and were put there meanwhile.
type folder struct {
	root *os.Root

	mu     sync.Mutex // guards hashes
	hashes map[string]string
}

func (f *folder) List(id string) ([]snapshot.Entry, error) {
	d, err := f.root.Open(id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	found, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]snapshot.Entry, 0, len(found))
	for _, d := range found {
		e := snapshot.Entry{Name: d.Name(), ID: path.Join(id, d.Name())}
		switch d.Type() {
		case 0:
			if info, err := d.Info(); err == nil {
				e.Exec = info.Mode()&0o100 != 0
			}
		case fs.ModeDir:
			e.Kind = snapshot.Dir
		case fs.ModeSymlink:
			e.Kind = snapshot.Link
		default: // sockets, devices and the like are no content
			continue
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b snapshot.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func (f *folder) Size(id string) (int64, error) {
	info, err := f.root.Lstat(id)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *folder) Read(id string) ([]byte, error) {
	info, err := f.root.Lstat(id)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		to, err := f.root.Readlink(id)
		return []byte(to), err
	}
	return f.root.ReadFile(id)
}

// Hash reads a file once.
func (f *folder) Hash(id string) (string, error) {
	f.mu.Lock()
	known := f.hashes[id]
	f.mu.Unlock()
	if known != "" {
		return known, nil
	}
	sum, err := f.sum(id)
	if err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hashes[id] = sum
	return sum, nil
}

func (f *folder) sum(id string) (string, error) {
	h := sha256.New()
	info, err := f.root.Lstat(id)
	if err != nil {
		return "", err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		to, err := f.root.Readlink(id)
		if err != nil {
			return "", err
		}
		_, _ = io.WriteString(h, "link "+to)
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	file, err := f.root.Open(id)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
