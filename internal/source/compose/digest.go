package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// summed is a tree that knows what its folders hold without being read through;
// see snapshot.Tree.
type summed interface {
	Below(name string) (digest string, closed bool, err error)
}

func contentHash(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Digest names all that is in the tree: "tree:" and 64 hexadecimal digits. It is made of the
// sources' hashes, and no file of theirs is read for it. Equal digests mean equal
// content; equal content put together in another way, or from another kind of source, may
// have another digest.
func (t *Tree) Digest() (string, error) { return digestOf(t.root) }

// Below is Digest for the folder at name. What symbolic links lead to is part
// of it, so closed is always true.
func (t *Tree) Below(name string) (digest string, closed bool, err error) {
	n, at, err := t.lookup("digest", name)
	if err != nil {
		return "", false, err
	}
	if n.source != nil {
		digest, err = folderDigest(n.source, at, false)
		return digest, true, as(name, err)
	}
	if n.kids == nil {
		return "", false, &fs.PathError{Op: "digest", Path: name, Err: fmt.Errorf("it is no folder: %w", fs.ErrInvalid)}
	}
	digest, err = digestOf(n)
	return digest, true, err
}

// digestOf names all that is in a node.
func digestOf(n *node) (string, error) {
	switch {
	case n.source != nil:
		return entryDigest(n.source, n.path, n.entry.Type(), false)
	case n.kids == nil:
		return n.hash, nil
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		kid := n.kids[name]
		digest, err := digestOf(kid)
		if err != nil {
			return "", err
		}
		kind := fs.ModeDir
		if kid.kids == nil {
			kind = kid.entry.Type()
		}
		fmt.Fprintf(h, "%s\x00%d %s\n", name, kind, digest)
	}
	return "tree:" + hex.EncodeToString(h.Sum(nil)), nil
}

// entryDigest names all that an entry of a source holds or leads to. Behind is true for
// what a symbolic link led to.
func entryDigest(a *source.Artifact, name string, kind fs.FileMode, behind bool) (string, error) {
	if kind == fs.ModeDir {
		return folderDigest(a, name, behind)
	}
	if kind == fs.ModeSymlink {
		info, err := a.Tree.Stat(name)
		switch {
		case notExist(err) || failure.KindOf(err) == failure.Invalid:
			return "broken", nil // whoever reads it is told; others are not kept from the rest
		case err != nil:
			return "", err
		case info.IsDir() && behind:
			// Links may lead in circles. All of the source is more than enough to know.
			return a.Digest, nil
		case info.IsDir():
			return folderDigest(a, name, true)
		}
	}
	return a.Tree.Hash(name)
}

func folderDigest(a *source.Artifact, name string, behind bool) (string, error) {
	if s, ok := a.Tree.(summed); ok {
		if digest, closed, err := s.Below(name); err != nil || closed {
			return digest, err
		}
	}
	entries, err := a.Tree.ReadDir(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, e := range entries {
		digest, err := entryDigest(a, path.Join(name, e.Name()), e.Type(), behind)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\x00%d %s\n", e.Name(), e.Type(), digest)
	}
	return "tree:" + hex.EncodeToString(h.Sum(nil)), nil
}
