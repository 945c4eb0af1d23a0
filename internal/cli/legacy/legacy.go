// Package legacy is the room where repositories of the engines before the toolkit are
// rewritten to today's kinds: those of the Helm Operator (helm.fluxcd.io/v1) and of
// Flux v1. It reads a working tree and says what would change in it; only what has to
// change does, and the rest of each file stays as it was, byte for byte.
package legacy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Change is what becomes of one file.
type Change struct {
	// Path is relative to the root of the tree, with slashes.
	Path string
	// Before is nil for a file that is new, After for one that goes.
	Before, After []byte
}

// Note is something that could not be translated, or that somebody has to look at.
type Note struct {
	Path string
	// Line counts from one; zero means the file as a whole.
	Line int
	// Text says what it is and what to do.
	Text string
}

// String is "FILE:LINE: what to do".
func (n Note) String() string {
	switch {
	case n.Path == "":
		return n.Text
	case n.Line == 0:
		return n.Path + ": " + n.Text
	}
	return fmt.Sprintf("%s:%d: %s", n.Path, n.Line, n.Text)
}

// Result is what a translation comes to, in the order of the files.
type Result struct {
	Changes []Change
	Notes   []Note
}

// tree is a working tree in memory: the files that a translation may look at.
type tree struct {
	// files are the contents as they are, by path with slashes.
	files map[string][]byte
	// after are the contents as they will be; nil means that the file goes.
	after map[string][]byte
	notes []Note
}

// maxFile keeps what is no manifest, but named as one, from being read.
const maxFile = 16 << 20

// readTree reads all YAML files below dir. Links are not followed, and folders of Git
// are left out.
func readTree(dir string) (*tree, error) {
	t := &tree{files: map[string][]byte{}, after: map[string][]byte{}}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &failure.Error{Op: "read folder", Object: dir, Kind: failure.NotFound, Err: err}
	}
	defer func() { _ = root.Close() }()
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return &failure.Error{Op: "read", Object: path.Join(filepath.ToSlash(dir), p), Kind: failure.Denied, Err: err}
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case !d.Type().IsRegular() || !isYAML(p):
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > maxFile {
			return err
		}
		t.files[p], err = root.ReadFile(p)
		return err
	})
	return t, err
}

func isYAML(p string) bool {
	ext := path.Ext(p)
	return ext == ".yaml" || ext == ".yml"
}

// paths are the files as they are, sorted.
func (t *tree) paths() []string { return slices.Sorted(maps.Keys(t.files)) }

// text is what a file holds by now; ok is false when there is none.
func (t *tree) text(p string) (text []byte, ok bool) {
	if text, ok = t.after[p]; ok {
		return text, text != nil
	}
	text, ok = t.files[p]
	return text, ok
}

// kustomizationOf returns the kustomization file of a folder, and "" when it has none.
func (t *tree) kustomizationOf(dir string) string {
	for _, name := range []string{"kustomization.yaml", "kustomization.yml"} {
		if _, ok := t.text(path.Join(dir, name)); ok {
			return path.Join(dir, name)
		}
	}
	return ""
}

// note records something for people.
func (t *tree) note(p string, line int, format string, args ...any) {
	t.notes = append(t.notes, Note{Path: p, Line: line, Text: fmt.Sprintf(format, args...)})
}

// noteAt is note about a node of a document, nil for the document as a whole.
func (t *tree) noteAt(d *document, n *yaml.Node, format string, args ...any) {
	t.note(d.path, d.line(n), format, args...)
}

// result compares what was with what will be.
func (t *tree) result() *Result {
	r := &Result{}
	for p, after := range t.after {
		if before := t.files[p]; !bytes.Equal(before, after) || before == nil != (after == nil) {
			r.Changes = append(r.Changes, Change{Path: p, Before: before, After: after})
		}
	}
	slices.SortFunc(r.Changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	slices.SortStableFunc(t.notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
	r.Notes = slices.Compact(t.notes)
	return r
}

// Write carries the changes out below dir. Each file is replaced as a whole, and keeps
// its mode; nothing outside of dir is written, links or not.
func Write(dir string, changes []Change) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return &failure.Error{Op: "open folder", Object: dir, Kind: failure.NotFound, Err: err}
	}
	defer func() { _ = root.Close() }()
	for _, c := range changes {
		if err := write(root, c); err != nil {
			return &failure.Error{Op: "write", Object: c.Path, Kind: failure.Denied, Err: err, Remedy: "what was written before it stays; run it again"}
		}
	}
	return nil
}

func write(root *os.Root, c Change) error {
	now, err := root.ReadFile(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		now = nil
	case err != nil:
		return err
	}
	if !bytes.Equal(now, c.Before) {
		return errors.New("the file changed meanwhile")
	}
	if c.After == nil {
		return root.Remove(c.Path)
	}
	mode := fs.FileMode(0o644)
	if info, err := root.Stat(c.Path); err == nil {
		mode = info.Mode().Perm()
	}
	if err := root.MkdirAll(path.Dir(c.Path), 0o755); err != nil {
		return err
	}
	temporary := c.Path + ".migrate"
	if err := root.WriteFile(temporary, c.After, mode); err != nil {
		return err
	}
	return root.Rename(temporary, c.Path)
}
