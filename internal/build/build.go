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

// Result is what a build made.
type Result struct {
	// Objects in the order in which the build produced them; no two share an
	// identity.
	Objects []*unstructured.Unstructured
	// Reads is what the build read.
	Reads Reads
}

// Reads maps every path that a build looked at to the hash it found there, and
// to Absent where there was nothing.
type Reads map[string]string

// Absent is the hash of a path where there is nothing.
const Absent = ""

// Unchanged reports whether tree holds the same at every recorded path, so
// that building from it would give the same bytes.
func (r Reads) Unchanged(tree source.Tree) bool {
	for name, want := range r {
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
