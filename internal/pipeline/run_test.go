package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

func (r *rig) expectSpent(want map[string]int, reason string) {
	r.t.Helper()
	if got := r.spent(); !maps.Equal(got, want) {
		r.t.Errorf("cost %v, want %v: %s", got, want, reason)
	}
}

// What the main loop costs: a commit what it changed, and nothing else anything.
func TestCosts(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"a/one.yaml": configMap("one", "1"), "a/two.yaml": configMap("two", "1"), "b/three.yaml": configMap("three", "1")}
	first := r.commit(files)
	for _, unit := range []string{"a", "b"} {
		if _, err := r.run(r.unit(unit), first); err != nil {
			t.Fatal(err)
		}
	}
	r.expectSpent(map[string]int{"build": 2, "apply": 3}, "everything is new")
	if r.intents != 2 {
		t.Errorf("%d intents, want one for each unit that grows", r.intents)
	}
	both := func(a source.Artifact) {
		t.Helper()
		for _, unit := range []string{"a", "b"} {
			if out, err := r.run(r.unit(unit), a); err != nil || len(out.Inventory) != map[string]int{"a": 2, "b": 1}[unit] {
				t.Fatalf("inventory %v, %v", out.Inventory, err)
			}
		}
	}
	both(first)
	r.expectSpent(map[string]int{}, "nothing changed")
	files["c/elsewhere.yaml"] = configMap("elsewhere", "1")
	both(r.commit(files))
	r.expectSpent(map[string]int{}, "the commit concerns neither unit")
	files["a/two.yaml"] = configMap("two", "2")
	second := r.commit(files)
	both(second)
	r.expectSpent(map[string]int{"build": 1, "apply": 1}, "the commit changes one object")
	if r.data("two") != "2" || r.intents != 2 {
		t.Errorf("got %q with %d intents; an inventory that stays is not written", r.data("two"), r.intents)
	}
	r.restart()
	r.spent()
	both(second)
	r.expectSpent(map[string]int{"build": 2}, "a restarted engine builds and asks nobody")
	r.edit("one", `{"data":{"a":"edited"}}`)
	r.eventually("the drift is told", func() bool { return r.drifted("one") })
	both(second)
	r.expectSpent(map[string]int{"build": 1, "apply": 1}, "healing sends the one object")
	if r.data("one") != "1" {
		t.Error("it is not healed")
	}
	delete(files, "a/two.yaml")
	out, err := r.run(r.unit("a"), r.commit(files))
	if err != nil || len(out.Inventory) != 1 || r.data("two") != "" {
		t.Errorf("pruned to %v: %v", out.Inventory, err)
	}
	r.expectSpent(map[string]int{"build": 1, "delete": 1}, "pruning deletes the one object")
}

func TestFailedBuildTouchesNothing(t *testing.T) {
	r := newRig(t)
	r.deliver("a", r.commit(map[string]string{"a/one.yaml": configMap("one", "1")}))
	cases := []struct {
		name, reason string
		files        map[string]string
		err          error
	}{
		{"empty", "an empty build is never delete all", map[string]string{"a/kustomization.yaml": "resources: []\n"}, build.ErrEmpty},
		{"missing", "nor is a folder that is gone", map[string]string{"b/x.yaml": configMap("x", "1")}, failure.Of(failure.NotFound)},
		{"broken", "nor is a file that cannot be read", map[string]string{"a/one.yaml": "a: [\n"}, failure.Of(failure.Invalid)},
		{"two of one identity", "one of them would be lost", map[string]string{"a/one.yaml": configMap("one", "1"), "a/two.yaml": configMap("one", "2")}, failure.Of(failure.Invalid)},
		{"no namespace", "the API server has no default", map[string]string{"a/one.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}"}, failure.Of(failure.Invalid)},
		{"a number as label", "ours cannot be put beside it", map[string]string{"a/one.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: one, namespace: NS, labels: {port: 80}}}"}, failure.Of(failure.Invalid)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r.spent()
			out, err := r.run(r.unit("a"), r.commit(c.files))
			var stage *StageError
			if !errors.Is(err, c.err) || !errors.As(err, &stage) || stage.Stage != Build {
				t.Errorf("got %v, want a failed build: %s", err, c.reason)
			}
			if got := r.spent(); got["apply"]+got["delete"] > 0 || len(out.Inventory) != 1 || r.data("one") != "1" {
				t.Errorf("it cost %v and left %v: %s", got, out.Inventory, c.reason)
			}
		})
	}
}

// An object of a kind that nobody serves yet is delivered once somebody does,
// with the scope that the kind turns out to have.
func TestKindThatComesLater(t *testing.T) {
	r := newRig(t)
	crd := `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: wholes.NS.example.com}, spec: {group: NS.example.com, scope: Cluster,
 names: {kind: Whole, plural: wholes}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`
	a := r.commit(map[string]string{"a/whole.yaml": "{apiVersion: NS.example.com/v1, kind: Whole, metadata: {name: one, namespace: wrong}}", "crds/crd.yaml": crd})
	_, err := r.run(r.unit("a"), a)
	if failure.KindOf(err) != failure.NotFound || !strings.Contains(err.Error(), "install the CustomResourceDefinition") {
		t.Fatalf("before the kind is served: %v", err)
	}
	r.deliver("crds", a)
	out := r.deliver("a", a)
	for _, w := range out.Wants {
		if w.ID.Namespace != "" {
			t.Errorf("delivered as %s: the kind is not namespaced", w.ID)
		}
		if claimant, ok := r.ledger.Claimant(w.ID); !ok || claimant != r.name("a") {
			t.Errorf("%s is claimed by %v, want by the unit that delivers it", w.ID, claimant)
		}
	}
	r.spent()
	if _, err := r.run(r.unit("a"), a); err != nil {
		t.Fatal(err)
	}
	r.expectSpent(map[string]int{}, "nothing changed")
}

func TestApplyFailureDeletesNothing(t *testing.T) {
	r := newRig(t)
	r.deliver("a", r.commit(map[string]string{"a/one.yaml": configMap("one", "1"), "a/two.yaml": configMap("two", "1")}))
	bad := r.commit(map[string]string{"a/one.yaml": configMap("one", "2"), "a/bad.yaml": configMap("Bad_Name", "1")})
	out, err := r.run(r.unit("a"), bad)
	if failure.KindOf(err) != failure.Invalid || r.data("two") != "1" || r.data("one") != "2" {
		t.Errorf("got %v with two=%q, one=%q; want the rest applied and nothing deleted", err, r.data("two"), r.data("one"))
	}
	if len(out.Inventory) != 3 {
		t.Errorf("the inventory is %v; it must hold all that may be there", out.Inventory)
	}
}

func TestDeletionBudget(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"a/keep.yaml": configMap("keep", "1")}
	for _, name := range []string{"b", "c", "d", "e", "f", "g"} {
		files["a/"+name+".yaml"] = configMap(name, "1")
	}
	r.deliver("a", r.commit(files))
	less := r.commit(map[string]string{"a/keep.yaml": configMap("keep", "2")})
	out, err := r.run(r.unit("a"), less)
	if err != nil || len(out.Plan.Held) != 6 || r.data("b") != "1" || r.data("keep") != "2" || len(out.Inventory) != 7 {
		t.Fatalf("held %d, b=%q, keep=%q, inventory %d, %v; want the deletions held and the rest applied", len(out.Plan.Held), r.data("b"), r.data("keep"), len(out.Inventory), err)
	}
	approved := r.unit("a")
	approved.Policy.Approved = out.Plan.HeldDigest
	out, err = r.run(approved, less)
	if err != nil || len(out.Plan.Held) != 0 || r.data("b") != "" || len(out.Inventory) != 1 {
		t.Errorf("after approval: held %d, b=%q, inventory %d, %v", len(out.Plan.Held), r.data("b"), len(out.Inventory), err)
	}
}

// Two units want one object: the first keeps it, the second delivers all else and
// says who has it; when the first lets go, the object changes hands and stays.
func TestTwoUnitsWantOneObject(t *testing.T) {
	r := newRig(t)
	files := map[string]string{"a/shared.yaml": configMap("shared", "a"), "a/own.yaml": configMap("own-a", "1"),
		"b/shared.yaml": configMap("shared", "b"), "b/own.yaml": configMap("own-b", "1"), "b/old.yaml": configMap("old-b", "1")}
	first := r.commit(files)
	r.deliver("a", first)
	out, err := r.run(r.unit("b"), first)
	if failure.KindOf(err) != failure.Conflict || !strings.Contains(err.Error(), r.namespace+"/a") || len(out.Inventory) != 2 {
		t.Fatalf("got %v and inventory %v; want a conflict that names the owner, and the rest delivered", err, out.Inventory)
	}
	if r.data("shared") != "a" || r.data("own-b") != "1" {
		t.Fatalf("shared=%q own-b=%q", r.data("shared"), r.data("own-b"))
	}
	delete(files, "b/old.yaml")
	second := r.commit(files)
	if _, err := r.run(r.unit("b"), second); err == nil || r.data("old-b") == "" {
		t.Errorf("with a conflict something was deleted (%v)", err)
	}
	uid := r.uid("shared")
	delete(files, "a/shared.yaml")
	third := r.commit(files)
	r.deliver("a", third)
	r.deliver("b", third)
	if r.data("shared") != "b" || r.uid("shared") != uid || r.data("old-b") != "" {
		t.Errorf("shared=%q, made anew: %v, old-b=%q", r.data("shared"), r.uid("shared") != uid, r.data("old-b"))
	}
}

// A unit whose neighbour cannot be built says so without what the neighbour's build
// used: neither values of Secrets nor keys.
func TestNeighbourConceals(t *testing.T) {
	const variable, token = "a-hidden-variable", "hvs.a-hidden-token"
	ring := sops.NewRing(t.Context(), sops.Options{})
	keys, err := ring.Open("Secret/ns/keys", "keys", map[string][]byte{"sops.vault-token": []byte(token)}, sops.Cloud{})
	if err != nil {
		t.Fatal(err)
	}
	p := New(func(context.Context, source.Tree, build.Recipe) (build.Result, error) {
		return build.Result{}, fmt.Errorf("Invalid value: %q, %q", variable, token)
	})
	other := Neighbour{Unit: Unit{Name: types.NamespacedName{Namespace: "ns", Name: "b"},
		Recipe: build.Recipe{Path: "b", Decryption: ring.Decrypter(keys, nil)}, Secrets: []string{variable}}}
	u := Unit{Name: types.NamespacedName{Namespace: "ns", Name: "a"}, Neighbours: func(context.Context) []Neighbour { return []Neighbour{other} }}
	f := p.foresee(t.Context(), u, Target{}, source.Artifact{}, &plan.Plan{Actions: []plan.Action{{Verb: plan.Delete}}})
	if !strings.Contains(f.Unknown, "Invalid value") || strings.Contains(f.Unknown, variable) || strings.Contains(f.Unknown, token) {
		t.Errorf("it says: %s", f.Unknown)
	}
}

func (r *rig) uid(name string) string {
	live, err := r.target.Applier.Live(r.t.Context(), plan.Action{ID: r.id(name), Version: "v1"})
	if err != nil || live == nil {
		r.t.Fatalf("read %s: %v", name, err)
	}
	return string(live.GetUID())
}

// One commit moves an object from one unit to another: it stays, whichever of the
// two runs first, also right after a restart.
func TestHandOverInOneCommit(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		for _, restarted := range []bool{false, true} {
			t.Run(strings.Join(order, " then ")+map[bool]string{true: ", restarted"}[restarted], func(t *testing.T) {
				r := newRig(t)
				files := map[string]string{"a/moved.yaml": configMap("moved", "1"), "a/own.yaml": configMap("own-a", "1"), "b/own.yaml": configMap("own-b", "1")}
				first := r.commit(files)
				r.deliver("a", first)
				r.deliver("b", first)
				uid := r.uid("moved")
				files["b/moved.yaml"] = files["a/moved.yaml"]
				delete(files, "a/moved.yaml")
				second := r.commit(files)
				if restarted {
					r.restart()
				}
				for _, name := range order {
					u := r.unit(name)
					u.Neighbours = r.neighbours("a", "b")
					if _, err := r.run(u, second); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				known, _ := r.ledger.Known(r.id("moved"))
				if r.uid("moved") != uid || known.Owner != r.name("b") || len(r.inventory["a"]) != 1 || len(r.inventory["b"]) != 2 {
					t.Errorf("owner %v, made anew: %v, inventories %v", known.Owner, r.uid("moved") != uid, r.inventory)
				}
			})
		}
	}
}
