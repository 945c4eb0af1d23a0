package observe

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/kustomize"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const twoMaps = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS}\ndata: {state: new}\n" +
	"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: NS}\ndata: {state: done}\n"

func rulesFor(t *testing.T, kind, current string) *health.Rules {
	t.Helper()
	rules, err := health.NewRules([]kustomize.CustomHealthCheck{{
		APIVersion: "v1", Kind: kind, HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: current},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// waiting names the objects that are not ready, for the unit.
func (r *rig) waiting(unit types.NamespacedName, objects ...*unstructured.Unstructured) string {
	ids := make([]object.ID, 0, len(objects))
	for _, u := range objects {
		ids = append(ids, object.IDOf(u))
	}
	var names []string
	for _, item := range r.ledger.Health(unit, ids).Waiting {
		names = append(names, item.ID.Name)
	}
	return strings.Join(names, " ")
}

func (r *rig) judge(unit types.NamespacedName, rules *health.Rules) {
	r.t.Helper()
	if err := r.ledger.Judge(r.t.Context(), unit, rules); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) set(u *unstructured.Unstructured, state string) {
	r.t.Helper()
	client := r.cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(u.GetNamespace())
	patch := []byte(`{"data":{"state":"` + state + `"}}`)
	if _, err := client.Patch(r.t.Context(), u.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		r.t.Fatal(err)
	}
}

// A kind that is watched as metadata, because it has nothing to judge, is watched whole
// as soon as a unit has its own words for it; those are heeded for its objects only.
func TestJudge(t *testing.T) {
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	objects := r.apply(parse(t, replaceNS(twoMaps, namespace))...)
	own, other := r.unit, types.NamespacedName{Namespace: namespace, Name: "other"}
	r.unit = other
	theirs := r.apply(parse(t, strings.ReplaceAll(replaceNS(twoMaps, namespace), "name: ", "name: o"))...)
	r.unit = own
	if got := r.waiting(r.unit, objects...); got != "" {
		t.Fatalf("before, %s are waited for", got)
	}
	r.judge(r.unit, rulesFor(t, "ConfigMap", "data.state == 'done'"))
	r.eventually("what is there is judged", func() bool { return r.waiting(r.unit, objects...) == "a" })
	if got := r.waiting(other, theirs...); got != "" {
		t.Errorf("another unit's objects %s are judged by words that are not its own", got)
	}
	told := r.told(r.unit, object.IDOf(objects[0]))
	r.set(objects[0], "done")
	r.eventually("a change is judged", func() bool { return r.waiting(r.unit, objects...) == "" })
	if got := r.told(r.unit, object.IDOf(objects[0])); got != told+1 {
		t.Errorf("told %d times of one change", got-told)
	}
	r.judge(r.unit, rulesFor(t, "ConfigMap", "data.state == 'new'"))
	if got := r.waiting(r.unit, objects...); got != "a b" {
		t.Errorf("by other words %q are waited for, want both", got)
	}
	r.judge(r.unit, nil)
	if got := r.waiting(r.unit, objects...); got != "" {
		t.Errorf("without words of its own %q are waited for", got)
	}
}

// Words that are known before anything is watched cost no request of their own, and
// the same words again none at all.
func TestJudgeAsksNothing(t *testing.T) {
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	objects := r.apply(parse(t, replaceNS(twoMaps, namespace))...)
	r.restart()
	r.judge(r.unit, rulesFor(t, "ConfigMap", "data.state == 'done'"))
	if err := r.ledger.Watch(t.Context(), schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}); err != nil {
		t.Fatal(err)
	}
	if got := r.waiting(r.unit, objects...); got != "a" {
		t.Errorf("%q are waited for, want a", got)
	}
	before := r.ledger.watches[schema.GroupKind{Kind: "ConfigMap"}]
	r.judge(r.unit, rulesFor(t, "ConfigMap", "data.state == 'done'"))
	if r.ledger.watches[schema.GroupKind{Kind: "ConfigMap"}] != before || r.ledger.unjudged[r.unit] {
		t.Error("the same words again had an effect")
	}
}

// What units follow, each judges in its own words.
func TestFollowJudged(t *testing.T) {
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	a, b := types.NamespacedName{Namespace: namespace, Name: "a"}, types.NamespacedName{Namespace: namespace, Name: "b"}
	objects := parse(t, replaceNS(twoMaps, namespace))[:1]
	ref := Reference{ID: object.IDOf(objects[0]), Version: "v1"}
	follow := func(unit types.NamespacedName) {
		t.Helper()
		if err := r.ledger.Follow(t.Context(), unit, []Reference{ref}); err != nil {
			t.Fatal(err)
		}
	}
	r.judge(a, rulesFor(t, "ConfigMap", "data.state == 'done'"))
	follow(a)
	follow(b)
	// Delivered by a unit that has no words of its own for it.
	r.apply(objects...)
	r.eventually("who has no words of its own is content", func() bool { return r.waiting(b, objects...) == "" })
	if got := r.waiting(a, objects...); got != "a" {
		t.Errorf("by its own words, %q is waited for", got)
	}
	r.set(objects[0], "done")
	r.eventually("it is as the one wants it", func() bool { return r.waiting(a, objects...) == "" })
	r.judge(a, rulesFor(t, "ConfigMap", "data.state == 'other'"))
	follow(a)
	r.eventually("new words are heeded", func() bool { return r.waiting(a, objects...) == "a" && r.told(a, ref.ID) > 0 })
	if got := r.waiting(b, objects...); got != "" {
		t.Errorf("another unit waits for %q", got)
	}
	r.judge(a, nil)
	follow(a)
	r.eventually("without words it is content", func() bool { return r.waiting(a, objects...) == "" })
	for _, unit := range []types.NamespacedName{a, b} {
		if err := r.ledger.Follow(t.Context(), unit, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.ledger.foreign) != 0 {
		t.Errorf("%d followers are left", len(r.ledger.foreign))
	}
}
