package observe

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/object"
)

// ownEntry returns the field set that manager applied to the main resource, in
// the API server's own bytes, and nil when it applied none.
func ownEntry(entries []metav1.ManagedFieldsEntry, manager string) []byte {
	for i := range entries {
		e := &entries[i]
		if e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == "" && e.FieldsV1 != nil {
			return e.FieldsV1.GetRawBytes()
		}
	}
	return nil
}

// ownership is a hash of our field set. Zero means that we own nothing.
type ownership uint64

func ownershipOf(seed maphash.Seed, fields []byte) ownership {
	if len(fields) == 0 {
		return 0
	}
	return ownership(maphash.Bytes(seed, fields)) | 1
}

// Coverage says whether a field set holds every field of a desired object.
type Coverage int

// The answers of Covers.
const (
	// Covered: every desired field is ours, so nobody changed one.
	Covered Coverage = iota
	// NotCovered: at least one desired field is not ours.
	NotCovered
	// Undecided: a leaf of the field set stands where a filled map or list is
	// desired; it is either atomic or has lost all its children.
	Undecided
)

// Covers compares the API server's record of the fields that we own with the
// object that we want. atomicLeaves says that the kind's schema is complete,
// as those of Kubernetes' own kinds are: a leaf is then always atomic.
//
// The form of the field set is that of structured-merge-diff: "f:<field>",
// "k:<keys of a list item>", "v:<member of a set>", and "." for the item itself.
func Covers(fields []byte, desired map[string]any, atomicLeaves bool) (Coverage, error) {
	var set map[string]any
	if err := json.Unmarshal(fields, &set); err != nil {
		return NotCovered, fmt.Errorf("read the field set: %w", err)
	}
	w := coverWalk{atomicLeaves: atomicLeaves}
	for name, value := range desired {
		switch name {
		case "apiVersion", "kind", "status":
			continue
		case "metadata":
			w.metadata(set, value)
		default:
			w.field(set, name, value)
		}
	}
	return w.result, nil
}

type coverWalk struct {
	atomicLeaves bool
	result       Coverage
}

// metadata walks the fields of the metadata that the API server records.
func (w *coverWalk) metadata(set map[string]any, value any) {
	meta, _ := value.(map[string]any)
	own, _ := set["f:metadata"].(map[string]any)
	for _, name := range []string{"labels", "annotations", "finalizers", "ownerReferences"} {
		if v, ok := meta[name]; ok && !empty(v) {
			w.field(own, name, v)
		}
	}
}

func (w *coverWalk) field(set map[string]any, name string, value any) {
	if w.result == NotCovered || value == nil {
		return
	}
	child, ok := set["f:"+name]
	if !ok {
		w.result = NotCovered
		return
	}
	node, _ := child.(map[string]any)
	w.value(node, value)
}

func (w *coverWalk) value(node map[string]any, value any) {
	if empty(value) {
		return
	}
	switch v := value.(type) {
	case map[string]any:
		if w.leaf(node) {
			return
		}
		for name, item := range v {
			w.field(node, name, item)
		}
	case []any:
		if w.leaf(node) {
			return
		}
		for _, item := range v {
			w.item(node, item)
		}
	}
}

// leaf notes a leaf that stands for a filled map or list.
func (w *coverWalk) leaf(node map[string]any) bool {
	if len(node) > 0 {
		return false
	}
	if !w.atomicLeaves && w.result == Covered {
		w.result = Undecided
	}
	return true
}

func (w *coverWalk) item(node map[string]any, item any) {
	if w.result == NotCovered {
		return
	}
	fields, isMap := item.(map[string]any)
	for key, child := range node {
		if raw, ok := strings.CutPrefix(key, "v:"); ok && object.SameScalar(raw, item) {
			return
		}
		raw, ok := strings.CutPrefix(key, "k:")
		if !ok || !isMap {
			continue
		}
		match, guessed := object.KeysMatch(raw, fields)
		if !match {
			continue
		}
		if guessed && !w.atomicLeaves && w.result == Covered {
			w.result = Undecided
		}
		childNode, _ := child.(map[string]any)
		w.value(childNode, fields)
		return
	}
	w.result = NotCovered
}

func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(x) == 0
	case []any:
		return len(x) == 0
	default:
		return false
	}
}
