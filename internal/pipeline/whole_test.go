package pipeline

import (
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// everything is the corpus of common kinds, in one folder, with a Secret as people
// write it. It leaves out what the corpus has to test odd custom resources.
func (r *rig) everything() string {
	r.t.Helper()
	data, err := os.ReadFile("../observe/testdata/corpus.yaml")
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data) + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: text, namespace: NS}\nstringData: {word: hunter2}\n"
}

// Every common kind through the whole loop: delivered, restarted over, audited and
// removed.
func TestEverything(t *testing.T) {
	r := newRig(t)
	a := r.commit(map[string]string{"a/all.yaml": r.everything()})
	r.deliver("a", a)
	r.restart()
	r.spent()
	out, err := r.run(r.unit("a"), a)
	if err != nil {
		t.Fatal(err)
	}
	cost := r.spent()
	custom := 0
	for _, w := range out.Wants {
		if strings.HasSuffix(w.ID.Group, ".example.com") {
			custom++
		}
	}
	if cost["apply"] != 0 || cost["dry-run"] > custom || cost["build"] != 1 {
		t.Errorf("a restart over everything cost %v; want no apply, and dry runs of custom resources alone", cost)
	}
	audit, err := r.pipeline.Audit(t.Context(), r.unit("a"), r.target, a)
	if err != nil || len(audit.Disagree) > 0 || audit.Objects != len(out.Wants) {
		t.Errorf("the audit of %d objects compared %d and disagrees on %v: %v", len(out.Wants), audit.Objects, audit.Disagree, err)
	}
	r.remove("a")
	for _, w := range out.Wants {
		// Nobody empties a namespace here, and what has finalizers stays with them.
		if w.ID.Kind == "Namespace" || strings.HasPrefix(w.ID.Kind, "PersistentVolume") {
			continue
		}
		r.eventually(w.ID.String()+" is gone", func() bool { _, there := r.ledger.Known(w.ID); return !there })
	}
}

// remove deletes what a unit delivered, and expects every object to be deleted once.
func (r *rig) remove(unit string) {
	r.t.Helper()
	r.spent()
	before := len(r.inventory[unit])
	going, err := r.pipeline.Remove(r.t.Context(), r.name(unit), r.target, r.inventory[unit])
	if err != nil {
		r.t.Fatal(err)
	}
	for range 3 { // events bring the unit back while objects are on their way out
		if going, err = r.pipeline.Remove(r.t.Context(), r.name(unit), r.target, going); err != nil {
			r.t.Fatal(err)
		}
	}
	if got := r.spent()["delete"]; got != before {
		r.t.Errorf("%d deletions of %d objects", got, before)
	}
}

func TestRemoveNeedsProof(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"a/one.yaml": configMap("one", "1"), "a/stolen.yaml": configMap("stolen", "1"), "a/shared.yaml": configMap("shared", "1"),
		"a/kept.yaml":   strings.Replace(configMap("kept", "1"), "metadata: {", "metadata: {annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}, ", 1),
		"b/shared.yaml": configMap("shared", "1")}
	a := r.commit(files)
	r.deliver("a", a)
	if _, err := r.run(r.unit("b"), a); failure.KindOf(err) != failure.Conflict {
		t.Fatalf("two units want one object: %v", err)
	}
	r.edit("stolen", `{"metadata":{"labels":{"kustomize.toolkit.fluxcd.io/name":"another"}}}`)
	r.eventually("the ledger sees the other owner", func() bool {
		known, _ := r.ledger.Known(r.id("stolen"))
		return known.Owner.Name == "another"
	})
	if _, err := r.pipeline.Remove(t.Context(), r.name("a"), r.target, r.inventory["a"]); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"one": "", "stolen": "1", "shared": "1", "kept": "1"} {
		if got := r.data(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// An audit notices a ledger that is wrong, and what it finds is healed.
func TestAuditFindsAWrongLedger(t *testing.T) {
	r := newRig(t)
	a := r.commit(map[string]string{"a/one.yaml": configMap("one", "1"), "a/two.yaml": configMap("two", "1")})
	r.deliver("a", a)
	r.edit("one", `{"data":{"a":"edited"}}`)
	r.eventually("the drift is told", func() bool { return r.drifted("one") })
	r.ledger.Settle(r.id("one")) // now the ledger takes the edit for what we applied
	r.spent()
	audit, err := r.pipeline.Audit(t.Context(), r.unit("a"), r.target, a)
	if err != nil || !slices.Equal(audit.Disagree, []object.ID{r.id("one")}) || audit.Objects != 2 {
		t.Fatalf("the audit found %+v, %v; want the one object", audit, err)
	}
	if got := r.spent(); got["apply"] != 0 || r.data("one") != "edited" {
		t.Errorf("an audit changes nothing: %v, %q", got, r.data("one"))
	}
	r.ledger.Doubt(r.id("one"))
	r.deliver("a", a)
	if r.data("one") != "1" {
		t.Errorf("the doubted object is %q, want it healed", r.data("one"))
	}
}

// A preview shows what a run would do, and does none of it.
func TestPreview(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"a/same.yaml": configMap("same", "1"), "a/change.yaml": configMap("change", "1"), "a/drift.yaml": configMap("drift", "1"),
		"a/gone.yaml": configMap("gone", "1"), "a/undressed.yaml": configMap("undressed", "1")}
	r.deliver("a", r.commit(files))
	r.edit("drift", `{"data":{"a":"edited"}}`)
	r.eventually("the drift is told", func() bool { return r.drifted("drift") })
	files["a/change.yaml"] = configMap("change", "2")
	files["a/new.yaml"] = configMap("new", "1")
	files["a/bad.yaml"] = configMap("Bad_Name", "1")
	files["a/within.yaml"] = "{apiVersion: v1, kind: Namespace, metadata: {name: NS-new}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: within, namespace: NS-new}}\n"
	delete(files, "a/gone.yaml")
	r.spent()
	_, differences, err := r.pipeline.Preview(t.Context(), r.unit("a"), r.target, r.commit(files))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]plan.Verb{"change": plan.Update, "drift": plan.Heal, "new": plan.Create, "gone": plan.Delete, "Bad_Name": plan.Create,
		r.namespace + "-new": plan.Create, "within": plan.Create}
	for _, d := range differences {
		if want[d.ID.Name] != d.Verb || (d.Err != nil) != (d.ID.Name == "Bad_Name") {
			t.Errorf("%s %s: %v, want %q", d.Verb, d.ID, d.Err, want[d.ID.Name])
		}
		if there, stays := d.Before != nil, d.After != nil; d.Err == nil && (there != (d.Verb != plan.Create) || stays != (d.Verb != plan.Delete)) {
			t.Errorf("%s %s has before %v and after %v", d.Verb, d.ID, there, stays)
		}
		delete(want, d.ID.Name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
	if got := r.spent(); got["apply"]+got["delete"] > 0 || r.data("change") != "1" || r.data("gone") != "1" || r.data("new") != "" {
		t.Errorf("the preview cost %v", got)
	}
}

// What kubectl or another engine of the toolkit's delivered is taken over: nothing
// is made anew.
func TestTakeOver(t *testing.T) {
	r := newRig(t)
	client := r.cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(r.namespace)
	force := true
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one","labels":{"kustomize.toolkit.fluxcd.io/name":"a","kustomize.toolkit.fluxcd.io/namespace":"` + r.namespace + `"}},"data":{"a":"1"}}`
	made, err := client.Patch(t.Context(), "one", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: "kustomize-controller", Force: &force})
	if err != nil {
		t.Fatal(err)
	}
	r.inventory["a"] = []plan.Entry{{ID: r.id("one"), Version: "v1"}, {ID: r.id("never-ours"), Version: "v1"}}
	if _, err := client.Patch(t.Context(), "never-ours", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"never-ours"},"data":{"a":"1"}}`),
		metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	out, err := r.run(r.unit("a"), r.commit(map[string]string{"a/one.yaml": configMap("one", "1")}))
	if err != nil || r.uid("one") != string(made.GetUID()) {
		t.Errorf("made anew, or failed: %v", err)
	}
	if r.data("never-ours") != "1" || len(out.Inventory) != 1 {
		t.Errorf("what never carried our labels was deleted, or is kept in the inventory: %v", out.Inventory)
	}
}
