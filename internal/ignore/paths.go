package ignore

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/object"
)

// Paths are the fields of one object that are left to others. They do not change.
// The nil Paths are none.
type Paths struct{ all []path }

// path leads to one field.
type path struct {
	steps []step
	// wanted says that the desired object has the field. One that it lacks is never
	// sent and never ours, unless it was taken over from somebody.
	wanted bool
}

// step goes to a member of a map, or to an item of a list.
type step struct {
	// name is the member; for an item, its index in the desired object.
	name string
	// item is the desired item itself, as far as it tells which one it is: its value, or
	// its fields that are plain values. Nil for members of maps.
	item  any
	index int
}

// resolve follows a pointer through the desired object. It fails where an item of a
// list is named that the object does not have.
func resolve(desired map[string]any, p pointer) (path, bool) {
	out := path{wanted: true}
	var at any = desired
	for _, part := range p {
		list, isList := at.([]any)
		if !isList {
			members, _ := at.(map[string]any)
			out.steps = append(out.steps, step{name: part})
			next, there := members[part]
			out.wanted = out.wanted && there
			at = next
			continue
		}
		i, err := strconv.Atoi(part)
		if err != nil || i < 0 || i >= len(list) {
			return path{}, false
		}
		out.steps = append(out.steps, step{name: part, item: tellingApart(list[i]), index: i})
		at = list[i]
	}
	return out, true
}

// tellingApart keeps of a list item what can be among its keys.
func tellingApart(item any) any {
	fields, ok := item.(map[string]any)
	if !ok {
		return item
	}
	keys := make(map[string]any, len(fields))
	for name, value := range fields {
		switch value.(type) {
		case map[string]any, []any:
		default:
			keys[name] = value
		}
	}
	return keys
}

// Without returns the desired object without these fields, and without what holds
// nothing else. The object itself is left as it is.
func (p *Paths) Without(desired *unstructured.Unstructured) *unstructured.Unstructured {
	if p == nil {
		return desired
	}
	out := desired.DeepCopy()
	for _, path := range p.all {
		if path.wanted {
			put(out.Object, path.steps, gone)
		}
	}
	sweep(out.Object)
	return out
}

// nothing stands for a field that is to be removed, so that the indexes of its
// siblings stay true until all are.
type nothing struct{}

var gone = nothing{}

// put sets the field at the end of steps. Maps that are missing are made.
func put(at any, steps []step, value any) {
	last := len(steps) == 1
	switch node := at.(type) {
	case map[string]any:
		if last {
			node[steps[0].name] = value
			return
		}
		if node[steps[0].name] == nil && value != any(gone) {
			node[steps[0].name] = map[string]any{}
		}
		put(node[steps[0].name], steps[1:], value)
	case []any:
		switch {
		case steps[0].item == nil || steps[0].index >= len(node):
		case last:
			node[steps[0].index] = value
		default:
			put(node[steps[0].index], steps[1:], value)
		}
	}
}

// sweep removes what put marked, and reports whether nothing is left for it.
func sweep(at any) (left any, empty bool) {
	removed := false
	switch node := at.(type) {
	case nothing:
		return nil, true
	case map[string]any:
		for name, child := range node {
			if rest, none := sweep(child); none {
				delete(node, name)
				removed = true
			} else {
				node[name] = rest
			}
		}
		return node, removed && len(node) == 0
	case []any:
		kept := node[:0]
		for _, child := range node {
			if rest, none := sweep(child); none {
				removed = true
			} else {
				kept = append(kept, rest)
			}
		}
		return kept, removed && len(kept) == 0
	}
	return at, false
}

// Cut returns a field set, in the API server's form, without these fields, so that
// it is the same whoever owns them. Where the API server keeps a list as one value,
// an item of it stands for the list.
func (p *Paths) Cut(fields []byte) []byte {
	if p == nil || len(fields) == 0 {
		return fields
	}
	var set map[string]any
	if json.Unmarshal(fields, &set) != nil {
		return fields
	}
	for _, path := range p.all {
		if path.wanted {
			cut(set, path.steps)
		}
	}
	out, err := json.Marshal(set)
	if err != nil {
		return fields
	}
	return out
}

func cut(node map[string]any, steps []step) {
	key, child, ok := child(node, steps[0])
	if !ok {
		return
	}
	if len(steps) == 1 || len(child) == 0 {
		delete(node, key)
		return
	}
	cut(child, steps[1:])
	switch _, self := child["."]; {
	case len(child) == 0:
		delete(node, key)
	case len(child) == 1 && self:
		node[key] = map[string]any{} // as it is written when nothing below it is owned
	}
}

// child finds the node of a field set that a step leads to.
func child(node map[string]any, s step) (key string, below map[string]any, ok bool) {
	if s.item == nil {
		key = "f:" + s.name
		value, there := node[key]
		below, _ = value.(map[string]any)
		return key, below, there
	}
	fields, isMap := s.item.(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(node)) {
		below, _ := node[key].(map[string]any)
		if raw, is := strings.CutPrefix(key, "v:"); is && object.SameScalar(raw, s.item) {
			return key, below, true
		}
		if raw, is := strings.CutPrefix(key, "k:"); is && isMap {
			if match, _ := object.KeysMatch(raw, fields); match {
				return key, below, true
			}
		}
	}
	return "", nil, false
}
