// Package build is the second stage of the main loop: from an Artifact and a
// recipe to the objects that they mean. Building is pure and hermetic: the same
// inputs give the same bytes, and every path that was read, the absent ones
// too, is recorded, so that a later revision is built again only when one of
// them changed. Each step has a package below this one.
package build

import (
	"errors"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/source"
)

// ErrEmpty says that a build went well and made no objects. The caller decides
// what that means; it never means "delete all".
var ErrEmpty = errors.New("the build holds no objects")

// Result is what a build made.
type Result struct {
	// Objects in the order in which the build produced them; no two share an
	// identity. Numbers are int64 or float64. The values belong to the caller.
	Objects []*unstructured.Unstructured
	// Reads is what the build read. A build that failed returns it too, so that
	// it is tried again only when something that it looked at changed.
	Reads Reads
}

// Reads maps every path that a build looked at to the hash it found there, to
// Absent where there was nothing, and to Folder where only the presence of a
// folder mattered.
type Reads map[string]string

const (
	// Absent is the hash of a path where there is nothing.
	Absent = ""
	// Folder stands for any folder, whatever it lists.
	Folder = "folder"
	// Elsewhere is the path recorded by a build that read things outside the
	// tree, which nothing vouches for: Unchanged is false for it. No tree can
	// hold it, because it is not a valid io/fs name.
	Elsewhere = "/elsewhere"
)

// Unchanged reports whether tree holds the same at every recorded path, so
// that building from it would give the same bytes.
func (r Reads) Unchanged(tree source.Tree) bool {
	if _, ok := r[Elsewhere]; ok {
		return false
	}
	for name, want := range r {
		if want == Folder {
			if info, err := tree.Stat(name); err != nil || !info.IsDir() {
				return false
			}
			continue
		}
		got, err := tree.Hash(name)
		if errors.Is(err, fs.ErrNotExist) {
			got = Absent
		} else if err != nil {
			return false
		}
		if got != want {
			return false
		}
	}
	return true
}
