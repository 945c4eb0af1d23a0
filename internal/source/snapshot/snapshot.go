// Package snapshot is the room that makes a source.Tree out of anything that
// can list folders and read files: it follows symbolic links without ever leaving
// the tree, leaves out what ignore rules name, limits what one read may take into memory,
// and names content by hashes. Folders are loaded when they are looked at.
package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// Kind is the type of an entry.
type Kind byte

// The kinds of entries.
const (
	File Kind = iota
	Dir
	Link
	// Module is another repository's place in this one; it is shown as an empty
	// folder unless Options.Modules has it.
	Module
)

// Entry is one name in a folder.
type Entry struct {
	Name string
	// ID is what the backend knows the entry by.
	ID   string
	Kind Kind
	// Exec is true for an executable file.
	Exec bool
}

// Backend holds the content. What an ID stands for must never change.
type Backend interface {
	// List returns what a folder holds, in the order of names; the caller may
	// change the slice.
	List(id string) ([]Entry, error)
	// Size returns a file's size in bytes.
	Size(id string) (int64, error)
	// Read returns a file's content, or a symbolic link's destination, which
	// the caller may change.
	Read(id string) ([]byte, error)
	// Hash returns the content identity of a file or symbolic link.
	Hash(id string) (string, error)
}

// Options change what a Tree shows.
type Options struct {
	// Ignore holds patterns in the format of .gitignore that come after those of all
	// .sourceignore files; nil means none. The default exclusions apply when
	// there are no patterns at all.
	Ignore *string
	// Only, when not empty, holds the files and folders to show, as clean paths; "." is all. One
	// that is not there is an error of kind failure.NotFound.
	Only []string
	// Modules says by path what to put after the ID of a module to make the ID of
	// the folder to show for it.
	Modules map[string]string
	// Everything shows all there is: no ignore rules apply, not even the default ones.
	Everything bool
	// MaxFileSize is the largest file in bytes that may be read; 0 for no limit.
	MaxFileSize int64
	// Cache, when set, is shared with other trees of the same backend.
	Cache *Cache
}

// maxLinks is how many symbolic links may lead to a file, as in Linux.
const maxLinks = 40

// Tree implements source.Tree.
type Tree struct {
	backend Backend
	cache   *Cache
	view    view
	rules   *rules
	root    *dir
	rootID  string
	maxSize int64
}

var _ source.Tree = (*Tree)(nil)

// New returns the tree whose root folder is rootID.
func New(backend Backend, rootID string, opts Options) (*Tree, error) {
	t := &Tree{backend: backend, cache: opts.Cache, rootID: rootID, maxSize: opts.MaxFileSize,
		view: view{only: opts.Only, modules: opts.Modules}}
	if t.cache == nil {
		t.cache = NewCache()
	}
	if err := t.checkOnly(); err != nil {
		return nil, err
	}
	if err := t.choose(opts); err != nil {
		return nil, err
	}
	root, err := t.load("", rootID)
	t.root = root
	return t, err
}

// choose finds the rules that apply.
func (t *Tree) choose(opts Options) error {
	if opts.Everything {
		t.rules = &rules{matcher: gitignore.NewMatcher(nil), byName: true, id: "everything"}
		return nil
	}
	var set ruleSet
	if err := t.gather(&set, nil, t.rootID); err != nil {
		return err
	}
	if opts.Ignore != nil {
		set.add(*opts.Ignore, nil)
	}
	t.rules = set.compile(t.view)
	return nil
}

// dir is a loaded folder as the rules leave it.
type dir struct {
	path    string // "" for the root
	id      string
	entries []Entry
	// kids holds the loaded folder of each entry.
	kids []atomic.Pointer[dir]
	hash string
}

func (d *dir) find(name string) (int, bool) {
	return slices.BinarySearchFunc(d.entries, name, func(e Entry, name string) int { return cmp.Compare(e.Name, name) })
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// load returns the folder id at path, from the cache when a tree has seen it before.
func (t *Tree) load(path, id string) (*dir, error) {
	key := dirKey{t.rules.id, path, id}
	if d := t.cache.dir(key); d != nil {
		return d, nil
	}
	entries, err := t.visible(path, id)
	if err != nil {
		return nil, err
	}
	d := &dir{path: path, id: id, entries: entries, kids: make([]atomic.Pointer[dir], len(entries)), hash: listingHash(entries)}
	t.cache.putDir(key, d)
	return d, nil
}

// listingHash names a folder by the names and types of what it holds.
func listingHash(entries []Entry) string {
	h := newListing()
	for i := range entries {
		h.add(entries[i].Name, entries[i].mode())
	}
	return h.sum()
}

// ListingHash is what Hash says of a folder that lists these entries, whatever
// kind of tree they are from.
func ListingHash(entries []fs.DirEntry) string {
	h := newListing()
	for _, e := range entries {
		h.add(e.Name(), e.Type())
	}
	return h.sum()
}

type listing struct{ hash.Hash }

func newListing() listing { return listing{sha256.New()} }

func (l listing) add(name string, mode fs.FileMode) {
	kind := File
	if mode.IsDir() {
		kind = Dir
	} else if mode.Type() == fs.ModeSymlink {
		kind = Link
	}
	fmt.Fprintf(l, "%s\x00%d\n", name, kind)
}

func (l listing) sum() string { return "dir:" + hex.EncodeToString(l.Sum(nil)[:20]) }

var emptyDir = &dir{hash: listingHash(nil)}

// child returns the folder of entry i.
func (t *Tree) child(d *dir, i int) (*dir, error) {
	if k := d.kids[i].Load(); k != nil {
		return k, nil
	}
	if d.entries[i].Kind == Module {
		return emptyDir, nil
	}
	k, err := t.load(join(d.path, d.entries[i].Name), d.entries[i].ID)
	if err == nil {
		d.kids[i].Store(k)
	}
	return k, err
}

// node is what a name leads to: a folder, or an entry that is none.
type node struct {
	dir   *dir
	entry *Entry
}

// resolve follows a name to the end, through symbolic links. The errors are
// complete but for the operation and the name.
func (t *Tree) resolve(name string) (node, error) {
	d, rest := t.root, name
	if name == "." {
		rest = ""
	}
	for rest != "" {
		var seg string
		seg, rest, _ = strings.Cut(rest, "/")
		i, ok := d.find(seg)
		if !ok {
			return node{}, fs.ErrNotExist
		}
		switch e := &d.entries[i]; e.Kind {
		case Link:
			return t.resolveLinks(name)
		case File:
			if rest != "" {
				return node{}, fs.ErrNotExist
			}
			return node{entry: e}, nil
		default:
			var err error
			if d, err = t.child(d, i); err != nil {
				return node{}, err
			}
		}
	}
	return node{dir: d}, nil
}

// resolveLinks is resolve for names with symbolic links in them.
func (t *Tree) resolveLinks(name string) (node, error) {
	stack := []*dir{t.root}
	todo := strings.Split(name, "/")
	links, link, outside := 0, "", ""
	for len(todo) > 0 {
		seg := todo[0]
		todo = todo[1:]
		d := stack[len(stack)-1]
		switch seg {
		case "", ".":
			continue
		case "..":
			if stack = stack[:len(stack)-1]; len(stack) == 0 {
				return node{}, linkError(link, outside)
			}
			continue
		}
		i, ok := d.find(seg)
		if !ok {
			return node{}, fs.ErrNotExist
		}
		switch e := &d.entries[i]; e.Kind {
		case File:
			if len(todo) > 0 {
				return node{}, fs.ErrNotExist
			}
			return node{entry: e}, nil
		case Link:
			link = join(d.path, e.Name)
			if links++; links > maxLinks {
				return node{}, linkError(link, "leads in a circle, or through more than 40 others")
			}
			to, err := t.destination(link, e)
			if err != nil {
				return node{}, err
			}
			outside = leadsOutside(to)
			todo = append(strings.Split(to, "/"), todo...)
		default:
			k, err := t.child(d, i)
			if err != nil {
				return node{}, err
			}
			stack = append(stack, k)
		}
	}
	return node{dir: stack[len(stack)-1]}, nil
}

func (t *Tree) destination(link string, e *Entry) (string, error) {
	size, err := t.backend.Size(e.ID)
	if err != nil {
		return "", err
	}
	if size > 4096 {
		return "", linkError(link, "has a destination of more than 4096 bytes")
	}
	to, err := t.backend.Read(e.ID)
	if err != nil {
		return "", err
	}
	if len(to) == 0 || to[0] == '/' {
		return "", linkError(link, leadsOutside(string(to)))
	}
	return string(to), nil
}

func leadsOutside(to string) string { return fmt.Sprintf("leads outside of the source, to %q", to) }

func linkError(link, what string) error {
	return &failure.Error{
		Op: "follow symbolic link", Object: link, Kind: failure.Invalid, Err: errors.New("it " + what),
		Remedy: "remove it, or let it lead to a file of the same source",
	}
}

// pathError adds the operation and the name to an error. One that says
// already what it is about stays the outermost, for it names the cause.
func pathError(op, name string, err error) error {
	if failure.KindOf(err) != "" {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (t *Tree) lookup(op, name string) (node, error) {
	if !fs.ValidPath(name) {
		return node{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n, err := t.resolve(name)
	if err != nil {
		return node{}, pathError(op, name, err)
	}
	return n, nil
}

// Hash implements source.Tree.
func (t *Tree) Hash(name string) (string, error) {
	n, err := t.lookup("hash", name)
	if err != nil {
		return "", err
	}
	if n.dir != nil {
		return n.dir.hash, nil
	}
	h, err := t.backend.Hash(n.entry.ID)
	if err != nil {
		return "", pathError("hash", name, err)
	}
	return h, nil
}
