package ignore

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/object"
)

// Takes says of an entry of the managed fields whether its fields will become ours
// with an apply.
type Takes func(metav1.ManagedFieldsEntry) bool

// Yield returns what to send instead of the desired object, given the live one: of
// every field that is left to others, the value that it has. Left out is what
// another manager applies, which it will keep; sending it as well would make both
// its owner. All else has to be sent, since the API server removes what nobody owns.
func (p *Paths) Yield(desired, live *unstructured.Unstructured, manager string, takes Takes) *unstructured.Unstructured {
	if p == nil || live == nil {
		return desired
	}
	o := ownersOf(live, manager, takes)
	out := desired.DeepCopy()
	for _, path := range p.all {
		value, there := o.find(live.Object, path.steps)
		if !path.wanted && (!there || !o.loses(path.steps)) {
			continue
		}
		if there {
			value, there = o.leave(value, path.steps)
		}
		if there {
			put(out.Object, path.steps, value)
		} else {
			put(out.Object, path.steps, gone)
		}
	}
	sweep(out.Object)
	return out
}

// owners is who owns what of a live object.
type owners struct {
	all []map[string]any
	// appliers are the field sets of those who apply, but for us and for those whose
	// fields become ours.
	appliers []map[string]any
	// ours are ours and those that become ours.
	ours []map[string]any
}

func ownersOf(live *unstructured.Unstructured, manager string, takes Takes) owners {
	var o owners
	for _, e := range live.GetManagedFields() {
		if e.FieldsV1 == nil {
			continue
		}
		var set map[string]any
		if json.Unmarshal(e.FieldsV1.GetRawBytes(), &set) != nil {
			continue
		}
		o.all = append(o.all, set)
		applied := e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
		switch {
		case applied && e.Manager == manager || takes(e):
			o.ours = append(o.ours, set)
		case applied:
			o.appliers = append(o.appliers, set)
		}
	}
	return o
}

// loses reports whether the field would be removed if it were not sent.
func (o owners) loses(steps []step) bool {
	return slices.ContainsFunc(o.ours, func(set map[string]any) bool { _, owned := walk(set, steps); return owned })
}

// walk follows steps through a field set. A leaf above the end owns the field as well.
func walk(set map[string]any, steps []step) (node map[string]any, owned bool) {
	node = set
	for _, s := range steps {
		_, next, ok := child(node, s)
		if !ok {
			return nil, false
		}
		if len(next) == 0 {
			return nil, true
		}
		node = next
	}
	return node, true
}

// leave removes from a live value what others apply, and reports whether anything is left.
func (o owners) leave(value any, steps []step) (any, bool) {
	for _, set := range o.appliers {
		node, owned := walk(set, steps)
		if !owned {
			continue
		}
		var left bool
		if value, left = leaveOut(value, node); !left {
			return nil, false
		}
	}
	return value, true
}

// leaveOut goes down maps only: an item of a list keeps the keys that name it.
func leaveOut(value any, node map[string]any) (any, bool) {
	if len(node) == 0 {
		return nil, false
	}
	members, ok := value.(map[string]any)
	if !ok {
		return value, true
	}
	out := make(map[string]any, len(members))
	for name, member := range members {
		below, owned := node["f:"+name]
		if !owned {
			out[name] = member
			continue
		}
		next, _ := below.(map[string]any)
		if rest, left := leaveOut(member, next); left {
			out[name] = rest
		}
	}
	return out, len(out) > 0
}

// find looks the field up in the live object. Items are found by the keys that the
// API server names them with, and where it has none by their name or place.
func (o owners) find(live map[string]any, steps []step) (any, bool) {
	var at any = live
	sets := o.all
	for _, s := range steps {
		var ok bool
		switch node := at.(type) {
		case map[string]any:
			at, ok = node[s.name]
		case []any:
			at, ok = item(node, s, sets)
		}
		if !ok {
			return nil, false
		}
		sets = below(sets, s)
	}
	return at, true
}

func below(sets []map[string]any, s step) []map[string]any {
	var out []map[string]any
	for _, set := range sets {
		if _, next, ok := child(set, s); ok {
			out = append(out, next)
		}
	}
	return out
}

func item(list []any, s step, sets []map[string]any) (any, bool) {
	if s.item == nil {
		return nil, false
	}
	for _, set := range sets {
		for _, key := range slices.Sorted(maps.Keys(set)) {
			if strings.HasPrefix(key, "v:") {
				i := slices.IndexFunc(list, func(v any) bool { return reflect.DeepEqual(v, s.item) })
				return s.item, i >= 0
			}
		}
		key, _, ok := child(set, s)
		if raw, keyed := strings.CutPrefix(key, "k:"); ok && keyed {
			i := slices.IndexFunc(list, func(v any) bool {
				fields, _ := v.(map[string]any)
				match, guessed := object.KeysMatch(raw, fields)
				return match && !guessed
			})
			if i >= 0 {
				return list[i], true
			}
		}
	}
	if wants, ok := s.item.(map[string]any); ok && wants["name"] != nil {
		i := slices.IndexFunc(list, func(v any) bool {
			fields, _ := v.(map[string]any)
			return fields["name"] == wants["name"]
		})
		if i < 0 {
			return nil, false
		}
		return list[i], true
	}
	if s.index >= len(list) {
		return nil, false
	}
	return list[s.index], true
}
