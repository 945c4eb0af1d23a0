package observe

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// A restarted engine finds every object of the common kinds in sync without a
// request, and no edit of a field that we own passes for in sync.
func TestAdoption(t *testing.T) {
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	applied := r.apply(corpus(t, namespace)...)
	r.restart()
	for _, u := range applied {
		if err := r.ledger.Watch(t.Context(), u.GroupVersionKind()); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range applied {
		id := object.IDOf(u)
		t.Run(id.String(), func(t *testing.T) {
			t.Parallel()
			if got := r.state(id); got != plan.Unproven {
				t.Fatalf("before adoption the state is %v, want unproven", got)
			}
			got := r.ledger.Adopt(id, u.Object)
			if settled, err := r.applier.Settled(t.Context(), u, nil); err != nil || !settled {
				t.Errorf("a dry run finds it changed (%v)", err)
			}
			if got != plan.InSync && (kube.Builtin(id.Group) || got != plan.Unproven) {
				t.Errorf("adopted as %v; fields %s", got, ownEntry(r.live(u).GetManagedFields(), testManager))
			}
			tryEdits(t, r, u, got == plan.InSync)
		})
	}
}

// tryEdits changes one thing at a time by another manager, in a dry run, and
// expects what was changed of ours to be seen both ways.
func tryEdits(t *testing.T, r *rig, desired *unstructured.Unstructured, decides bool) {
	t.Helper()
	resource, err := r.cluster.Resources.Of(t.Context(), desired.GroupVersionKind())
	if err != nil {
		t.Fatal(err)
	}
	client := r.cluster.Dynamic.Resource(resource.GroupVersionResource).Namespace(desired.GetNamespace())
	live := r.live(desired)
	base := ownEntry(live.GetManagedFields(), testManager)
	seen := map[string]bool{} // one change and one removal of each value are enough
	for _, e := range editsOf(desired.Object, nil) {
		what := fmt.Sprint(e.path, e.to == nil)
		if seen[what] {
			continue
		}
		changed := live.DeepCopy()
		if !e.do(changed.Object) {
			continue
		}
		after, err := client.Update(t.Context(), changed, metav1.UpdateOptions{FieldManager: "intruder", DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err) {
			continue // such a change cannot happen
		}
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		if apply.Same(live, after) {
			continue // the API server put it back
		}
		seen[what] = true
		fields := ownEntry(after.GetManagedFields(), testManager)
		if bytes.Equal(fields, base) {
			if !e.adds {
				t.Errorf("%s leaves our field set as it was", e)
			}
			continue
		}
		if got, err := Covers(fields, desired.Object, kube.Builtin(desired.GroupVersionKind().Group)); err != nil || got == Covered && decides {
			t.Errorf("after %s the fields still cover the object (%v): %s", e, err, fields)
		}
	}
	if len(seen) == 0 {
		t.Error("no edit was possible: this test proves nothing")
	}
}

// edit changes one value.
type edit struct {
	path []any
	to   any // nil removes
	// adds: what is added to an empty map or list may be nobody's business of ours.
	adds bool
}

func (e edit) String() string {
	if e.to == nil {
		return fmt.Sprintf("removing %v", e.path)
	}
	return fmt.Sprintf("setting %v to %v", e.path, e.to)
}

// editsOf lists changes to every value that obj holds.
func editsOf(value any, path []any) []edit {
	if len(path) == 1 && (path[0] == "apiVersion" || path[0] == "kind" || path[0] == "status") ||
		len(path) == 2 && path[0] == "metadata" && path[1] != "labels" && path[1] != "annotations" && path[1] != "finalizers" {
		return nil
	}
	path = append([]any(nil), path...)
	var out []edit
	if len(path) > 1 {
		out = append(out, edit{path: path, to: nil})
	}
	at := func(key any) []any { return append(path[:len(path):len(path)], key) }
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			for _, filled := range []map[string]any{{"matchLabels": map[string]any{"edited": "yes"}}, {"medium": "Memory"}, {"edited": "yes"}} {
				out = append(out, edit{path: path, to: filled, adds: true})
			}
		}
		for key, item := range v {
			out = append(out, editsOf(item, at(key))...)
		}
	case []any:
		if len(v) == 0 {
			out = append(out, edit{path: path, to: []any{map[string]any{}}, adds: true}, edit{path: path, to: []any{"edited"}, adds: true})
		}
		for i, item := range v {
			out = append(out, editsOf(item, at(i))...)
		}
	case string:
		out = append(out, edit{path: path, to: v + "x"}, edit{path: path, to: "Always"}, edit{path: path, to: "OnDelete"})
		if strings.HasSuffix(v, "i") {
			out = append(out, edit{path: path, to: "9Ti"})
		}
	case int64:
		out = append(out, edit{path: path, to: v + 1})
	case float64:
		out = append(out, edit{path: path, to: v + 1})
	case bool:
		out = append(out, edit{path: path, to: !v})
	}
	return out
}

// do makes the change, and reports whether obj has such a path.
func (e edit) do(obj map[string]any) bool {
	_, ok := changed(obj, e.path, e.to)
	return ok
}

// changed returns the value with one below it set, or removed when to is nil.
func changed(value any, path []any, to any) (any, bool) {
	if len(path) == 0 {
		return to, true
	}
	switch node := value.(type) {
	case map[string]any:
		name, _ := path[0].(string)
		item, ok := changed(node[name], path[1:], to)
		if _, there := node[name]; !there || !ok {
			return nil, false
		}
		if item == nil {
			delete(node, name)
		} else {
			node[name] = item
		}
		return node, true
	case []any:
		n, isIndex := path[0].(int)
		if !isIndex || n >= len(node) {
			return nil, false
		}
		item, ok := changed(node[n], path[1:], to)
		if !ok {
			return nil, false
		}
		if item == nil {
			return slices.Delete(node, n, n+1), true
		}
		node[n] = item
		return node, true
	}
	return nil, false
}
