package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// Tree is a tree made of parts of others.
type Tree struct{ root *node }

var _ source.Tree = (*Tree)(nil)

// lookup returns what is at a name: a made node and "", or the node that refers to
// the source it is in and the path there.
func (t *Tree) lookup(op, name string) (n *node, at string, err error) {
	if !fs.ValidPath(name) {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n, rest := t.root, name
	if name == "." {
		rest = ""
	}
	for n.source == nil && rest != "" {
		var seg string
		seg, rest, _ = strings.Cut(rest, "/")
		if n = n.kids[seg]; n == nil {
			return nil, "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
	}
	if n.source == nil {
		return n, "", nil
	}
	return n, path.Join(n.path, rest), nil
}

// as names a path of this tree in an error of another one, unless the error
// says already what it is about.
func as(name string, err error) error {
	if p, ok := err.(*fs.PathError); ok { //nolint:errorlint // only the outermost error has the name of the path that was asked for
		return &fs.PathError{Op: p.Op, Path: name, Err: p.Err}
	}
	return err
}

// ReadFile implements source.Tree.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	n, at, err := t.lookup("read", name)
	switch {
	case err != nil:
		return nil, err
	case n.source != nil:
		data, err := n.source.Tree.ReadFile(at)
		return data, as(name, err)
	case n.kids != nil:
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is a folder: %w", fs.ErrInvalid)}
	default:
		return slices.Clone(n.data), nil
	}
}

// ReadDir implements source.Tree.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, at, err := t.lookup("readdir", name)
	switch {
	case err != nil:
		return nil, err
	case n.source != nil:
		entries, err := n.source.Tree.ReadDir(at)
		return entries, as(name, err)
	case n.kids == nil:
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fmt.Errorf("it is no folder: %w", fs.ErrInvalid)}
	default:
		return n.list(), nil
	}
}

// list returns the entries of a made folder.
func (n *node) list() []fs.DirEntry {
	out := make([]fs.DirEntry, 0, len(n.kids))
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		kid := n.kids[name]
		if kid.kids != nil {
			out = append(out, fs.FileInfoToDirEntry(snapshot.Info(name, fs.ModeDir|0o555, 0)))
			continue
		}
		out = append(out, renamed{kid.entry, name})
	}
	return out
}

// renamed is an entry under another name.
type renamed struct {
	fs.DirEntry
	name string
}

func (r renamed) Name() string   { return r.name }
func (r renamed) String() string { return fs.FormatDirEntry(r) }

func (r renamed) Info() (fs.FileInfo, error) {
	info, err := r.DirEntry.Info()
	if err != nil {
		return nil, err
	}
	return snapshot.Info(r.name, info.Mode(), info.Size()), nil
}

// Stat implements source.Tree.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	n, at, err := t.lookup("stat", name)
	switch {
	case err != nil:
		return nil, err
	case n.source == nil && n.kids != nil:
		return snapshot.Info(path.Base(name), fs.ModeDir|0o555, 0), nil
	case n.source == nil:
		return snapshot.Info(path.Base(name), 0o444, int64(len(n.data))), nil
	}
	info, err := n.source.Tree.Stat(at)
	if err != nil {
		return nil, as(name, err)
	}
	return snapshot.Info(path.Base(name), info.Mode(), info.Size()), nil
}

// Hash implements source.Tree: of what comes from a source it is the source's,
// so that something has the same hash wherever it is copied to.
func (t *Tree) Hash(name string) (string, error) {
	n, at, err := t.lookup("hash", name)
	switch {
	case err != nil:
		return "", err
	case n.source != nil:
		hash, err := n.source.Tree.Hash(at)
		return hash, as(name, err)
	case n.kids != nil:
		return snapshot.ListingHash(n.list()), nil
	default:
		return n.hash, nil
	}
}

// Open implements fs.FS.
func (t *Tree) Open(name string) (fs.File, error) { return snapshot.OpenIn(t, name) }

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
