package pipeline

import (
	"strconv"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

func twoValues(a, b string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: NS}\ndata: {a: \"" + a + "\", b: \"" + b + "\"}\n"
}

// leaving is the unit with rules that leave fields to others.
func (r *rig) leaving(paths ...string) Unit {
	r.t.Helper()
	u := r.unit("app")
	var err error
	if u.Ignore, err = ignore.New([]kustomizev1.IgnoreRule{{Paths: paths}}); err != nil {
		r.t.Fatal(err)
	}
	return u
}

// verb runs the unit and returns what was done to its one object.
func (r *rig) verb(u Unit, a source.Artifact) plan.Verb {
	r.t.Helper()
	u.Inventory = r.inventory["app"]
	out, err := r.run(u, a)
	if err != nil {
		r.t.Fatal(err)
	}
	return out.Plan.Actions[0].Verb
}

// A field that is left to others stays as they have it: no drift, no difference, nothing
// for an audit to find, also for an engine that has just started. Other fields are
// healed beside it.
func TestIgnored(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		paths        []string
		applied      bool // the other applies, instead of updating
	}{
		{name: "updated", reason: "the value is sent along, since nobody else holds it", paths: []string{"/data/a"}},
		{name: "applied", reason: "the field is no longer sent", paths: []string{"/data/a"}, applied: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			u, a := r.leaving(row.paths...), r.commit(map[string]string{"app/m.yaml": twoValues("ours", "ours")})
			if got := r.verb(u, a); got != plan.Create || r.data("m") != "ours" {
				t.Fatalf("at first it was %s with %q", got, r.data("m"))
			}
			r.take("m", "theirs", row.applied)
			r.edit("m", `{"data":{"b":"theirs"}}`)
			r.eventually("the other field drifted", func() bool { return r.drifted("m") })
			if got := r.verb(u, a); got != plan.Heal || r.data("m") != "theirs" {
				t.Errorf("healed beside it: %s, and it is %q: %s", got, r.data("m"), row.reason)
			}
			r.quiet(u, a, "theirs")
			r.restart()
			r.quiet(u, a, "theirs")
			r.take("m", "more", row.applied)
			r.quiet(u, a, "more")
			next := r.commit(map[string]string{"app/m.yaml": twoValues("ours again", "more")})
			if got := r.verb(u, next); got != plan.Update || r.data("m") != "more" {
				t.Errorf("a commit: %s, and it is %q", got, r.data("m"))
			}
			r.take("m", "after a restart", row.applied)
			r.restart()
			r.quiet(u, next, "after a restart")
			if got := r.verb(r.unit("app"), next); got != plan.Update || r.data("m") != "ours again" {
				t.Errorf("without the rule: %s, and it is %q", got, r.data("m"))
			}
		})
	}
}

// take changes the field behind our back.
func (r *rig) take(name, value string, applied bool) {
	r.t.Helper()
	if !applied {
		r.edit(name, `{"data":{"a":"`+value+`"}}`)
		return
	}
	client := r.cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(r.namespace)
	force := true
	patch := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"},"data":{"a":"` + value + `"}}`
	if _, err := client.Patch(r.t.Context(), name, types.ApplyPatchType, []byte(patch), metav1.PatchOptions{FieldManager: "scaler", Force: &force}); err != nil {
		r.t.Fatal(err)
	}
}

// quiet fails the test unless nothing is to be done, shown or healed.
func (r *rig) quiet(u Unit, a source.Artifact, value string) {
	r.t.Helper()
	live, err := r.target.Applier.Live(r.t.Context(), plan.Action{ID: r.id("m"), Version: "v1"})
	if err != nil || live == nil {
		r.t.Fatalf("read: %v", err)
	}
	if _, known := r.ledger.Get(r.id("m")); known { // else the run begins to watch
		r.eventually("the ledger knows it as it is", func() bool {
			known, _ := r.ledger.Get(r.id("m"))
			return strconv.FormatUint(known.Version, 10) == live.GetResourceVersion()
		})
	}
	u.Recheck = true
	if got := r.verb(u, a); got != plan.Keep || r.data("m") != value {
		r.t.Errorf("%s, and it is %q; want it kept with %q", got, r.data("m"), value)
	}
	if _, differences, err := r.pipeline.Preview(r.t.Context(), u, r.target, a); err != nil || len(differences) > 0 {
		r.t.Errorf("a preview shows %d differences, %v", len(differences), err)
	}
	audit, err := r.pipeline.Audit(r.t.Context(), u, r.target, a)
	if err != nil || audit.Objects != 1 || len(audit.Disagree) > 0 {
		r.t.Errorf("an audit found %+v, %v", audit, err)
	}
	if after, err := r.target.Applier.Live(r.t.Context(), plan.Action{ID: r.id("m"), Version: "v1"}); err != nil || after.GetResourceVersion() != live.GetResourceVersion() {
		r.t.Errorf("it was written to, %v", err)
	}
}

// A rule that comes later than the object costs one apply and changes nothing; an object
// whose only field is left to others is in sync without it.
func TestIgnoredLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.commit(map[string]string{"app/m.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: NS}\ndata: {a: ours}\n"})
	r.verb(r.unit("app"), a)
	u := r.leaving("/data/a", "/data/missing", "/metadata/annotations/missing")
	r.take("m", "theirs", false)
	if got := r.verb(u, a); got != plan.Update || r.data("m") != "theirs" {
		t.Errorf("%s, and it is %q", got, r.data("m"))
	}
	r.quiet(u, a, "theirs")
	r.take("m", "more", true)
	r.restart()
	r.quiet(u, a, "more")
	r.edit("m", `{"data":null}`)
	r.quiet(u, a, "")
}
