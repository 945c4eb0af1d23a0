// Package compose is the room that makes one source.Tree out of parts of others.
// What it makes holds references to those trees and no content of theirs, so that
// copying costs next to nothing whatever is copied. Only files that are made by
// merging others, or taken out of archives, are in memory.
//
// A symbolic link in a part leads where it leads in its own tree, and never to
// another part.
package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// Builder collects the parts. Later ones are laid over those before them: folders
// are united, files replaced. A file where a folder is, or the other way round, is an
// error of kind failure.Invalid. The zero value is not usable; see New.
type Builder struct {
	root *node
}

// New returns a builder of a tree that is empty.
func New() *Builder { return &Builder{root: folder()} }

// Graft lays the file or folder at from, itself and not only what is in it, over
// the path to: Graft(a, "deploy", ".") makes what is in the folder deploy the root. Paths are
// slash-separated and relative; one that leads outside of its tree is an error of kind
// failure.Invalid, and a from that does not exist one of kind failure.NotFound.
func (b *Builder) Graft(a source.Artifact, from, to string) error { return b.Include(a, from, to, nil) }

// Tree returns what was put together. The builder must not be used any more.
func (b *Builder) Tree() *Tree { return &Tree{root: b.root} }

// inside cleans a path that has to stay within whole.
func inside(whole, name string) (string, error) {
	clean := path.Clean(name)
	if name == "" {
		clean = "."
	}
	if strings.HasPrefix(clean, "/") || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", invalid(name, fmt.Errorf("the path leads outside of %s", whole), "give a relative path without '..'")
	}
	if !fs.ValidPath(clean) {
		return "", invalid(name, errors.New("it is no valid path"), "give a relative path with '/' between names")
	}
	return clean, nil
}

func invalid(name string, err error, remedy string) error {
	return &failure.Error{Op: "copy", Object: fmt.Sprintf("%q", name), Kind: failure.Invalid, Err: err, Remedy: remedy}
}

// node is a file or folder: one of a source, or one that was made here.
type node struct {
	// source and path name what the node refers to; source is nil where it was made.
	source *source.Artifact
	path   string
	// entry has the type, and says more when asked. It is nil for folders that were made.
	entry fs.DirEntry
	// kids is not nil for a folder that was made.
	kids map[string]*node
	// data and hash are the content of a file that was made.
	data []byte
	hash string
}

func folder() *node { return &node{kids: map[string]*node{}} }

// file returns a made file.
func file(data []byte) *node {
	info := snapshot.Info("", 0o444, int64(len(data)))
	return &node{data: data, hash: contentHash(data), entry: fs.FileInfoToDirEntry(info)}
}

// reference returns the node for what is at name, symbolic links followed.
func reference(a source.Artifact, name string) (*node, error) {
	info, err := a.Tree.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &failure.Error{Op: "copy", Object: fmt.Sprintf("%q", name), Kind: failure.NotFound,
			Err: errors.New("there is no such file or folder in the source"), Remedy: "correct the path, or add it to the source"}
	}
	if err != nil {
		return nil, err
	}
	return &node{source: &a, path: name, entry: fs.FileInfoToDirEntry(info)}, nil
}

// isDir reports whether the node is a folder, or leads to one.
func (n *node) isDir() bool {
	switch {
	case n.kids != nil:
		return true
	case n.entry.Type() != fs.ModeSymlink:
		return n.entry.IsDir()
	}
	info, err := n.source.Tree.Stat(n.path)
	return err == nil && info.IsDir()
}

// isLink reports whether the node is a symbolic link of a source.
func (n *node) isLink() bool { return n.kids == nil && n.entry.Type() == fs.ModeSymlink }

// expand makes a folder that refers to a source one of its own, of references
// to what is in it.
func (n *node) expand() error {
	if n.kids != nil {
		return nil
	}
	entries, err := n.source.Tree.ReadDir(n.path)
	if err != nil {
		return err
	}
	kids := make(map[string]*node, len(entries))
	for _, e := range entries {
		kids[e.Name()] = &node{source: n.source, path: path.Join(n.path, e.Name()), entry: e}
	}
	*n = node{kids: kids}
	return nil
}

// find returns the node at a path of the tree as it is so far, and nil where there is none.
func (b *Builder) find(name string) (*node, error) {
	n := b.root
	if name == "." {
		return n, nil
	}
	for seg := range strings.SplitSeq(name, "/") {
		if !n.isDir() {
			return nil, nil
		}
		if err := n.expand(); err != nil {
			return nil, err
		}
		if n = n.kids[seg]; n == nil {
			return nil, nil
		}
	}
	return n, nil
}

// lay puts a node at a path, over what is there.
func (b *Builder) lay(to string, n *node) error {
	if to == "." {
		if !n.isDir() {
			return invalid(to, errors.New("a file cannot take the place of the root"), "name the file in the destination")
		}
		return unite(b.root, n, to, false)
	}
	at := b.root
	dir, base := path.Split(to)
	if dir = strings.TrimSuffix(dir, "/"); dir != "" {
		done := ""
		for seg := range strings.SplitSeq(dir, "/") {
			done = path.Join(done, seg)
			next, err := at.enter(seg, done)
			if err != nil {
				return err
			}
			at = next
		}
	}
	return at.put(base, n, to, false)
}

// enter returns the folder called name in this one, which is made when there is none.
func (n *node) enter(name, at string) (*node, error) {
	if err := n.expand(); err != nil {
		return nil, err
	}
	kid := n.kids[name]
	if kid == nil {
		kid = folder()
		n.kids[name] = kid
	}
	if !kid.isDir() {
		return nil, invalid(at, errors.New("it is a file, and something is to be copied into it as a folder"), "give one of the two another destination")
	}
	return kid, nil
}

// put lays a node over what a folder has under a name. A link takes the place of a
// link. One that meets a folder stands for the folder it leads to, once: behind is true
// for what is below such a link, because links that lead in circles have no end.
func (n *node) put(name string, kid *node, at string, behind bool) error {
	if err := n.expand(); err != nil {
		return err
	}
	old := n.kids[name]
	switch {
	case old == nil || old.isLink() && kid.isLink() || !old.isDir() && !kid.isDir():
		n.kids[name] = kid
		return nil
	case !old.isDir() || !kid.isDir():
		return invalid(at, errors.New("a file and a folder are to be copied there"), "give one of the two another destination")
	case behind && (old.isLink() || kid.isLink()):
		return invalid(at, errors.New("a link and a folder are to be copied there, below where another link meets a folder"), "give one of the two another destination")
	default:
		return unite(old, kid, at, behind || old.isLink() || kid.isLink())
	}
}

// unite lays the folder over onto the folder n.
func unite(n, over *node, at string, behind bool) error {
	if n.kids != nil && len(n.kids) == 0 {
		*n = *over
		return nil
	}
	if err := n.expand(); err != nil {
		return err
	}
	if err := over.expand(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(over.kids)) {
		if err := n.put(name, over.kids[name], path.Join(at, name), behind); err != nil {
			return err
		}
	}
	return nil
}

// Write adds a file that is made here, over what is at the path to. The data is the builder's
// from then on.
func (b *Builder) Write(to string, data []byte) error {
	clean, err := inside("the artifact", to)
	if err != nil {
		return err
	}
	return b.lay(clean, file(data))
}
