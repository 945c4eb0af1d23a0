package observe

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const web = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: NS, labels: {app: web}}, spec: {replicas: 2,
 selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'registry.example.com/web:1'}]}}}}`

// Drift is exact: told when anything of ours changes, by whatever way, and never
// for anything else.
func TestDriftIsExact(t *testing.T) {
	patch := func(kind types.PatchType, body string, subresources ...string) func(context.Context, dynamic.ResourceInterface) error {
		return func(ctx context.Context, c dynamic.ResourceInterface) error {
			force := true
			o := metav1.PatchOptions{FieldManager: "intruder"}
			if kind == types.ApplyPatchType {
				o.Force = &force
			}
			_, err := c.Patch(ctx, "web", kind, []byte(body), o, subresources...)
			return err
		}
	}
	merge, apply := types.MergePatchType, types.ApplyPatchType
	head := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"}`
	cases := []struct {
		name, reason string
		do           func(context.Context, dynamic.ResourceInterface) error
		drift        bool
		gone         bool
	}{
		{"a field of ours", "the image is what we want it to be",
			patch(types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"other:2"}]}}}}`), true, false},
		{"a field of ours, applied", "taking by force is a change", patch(apply, head+`,"spec":{"replicas":7}}`), true, false},
		{"a field of ours, same value", "nothing is other than we want it", patch(apply, head+`,"spec":{"replicas":2}}`), false, false},
		{"a label of ours", "labels are fields", patch(merge, `{"metadata":{"labels":{"app":"x"}}}`), true, false},
		{"a label of ours removed", "a missing label is a change", patch(merge, `{"metadata":{"labels":{"app":null}}}`), true, false},
		{"the digest", "it says what was applied", patch(merge, `{"metadata":{"annotations":{"`+object.AppliedDigestAnnotation+`":"x"}}}`), true, false},
		{"a field of theirs", "we have no opinion on it", patch(merge, `{"spec":{"paused":true}}`), false, false},
		{"a label of theirs", "we have no opinion on it", patch(merge, `{"metadata":{"labels":{"theirs":"x"}}}`), false, false},
		{"a container of theirs", "a list item of theirs is none of ours",
			patch(types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"name":"injected","image":"x"}]}}}}`), false, false},
		{"scale", "the subresource changes replicas, which are ours", patch(merge, `{"spec":{"replicas":5}}`, "scale"), true, false},
		{"status", "status moves by itself", patch(merge, `{"status":{"observedGeneration":1,"replicas":2}}`, "status"), false, false},
		{"ownership wiped", "nobody can tell any more whose fields these are",
			patch(types.JSONPatchType, `[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]`), true, false},
		{"owner label removed", "it is out of our sight", patch(merge, `{"metadata":{"labels":{"`+object.KustomizeGroup+"/name"+`":null}}}`), true, true},
		{"prune annotation", "a mark that steers us needs a new plan", patch(merge, `{"metadata":{"annotations":{"`+object.KustomizeGroup+"/prune"+`":"Disabled"}}}`), true, false},
		{"deleted", "it has to be made again", func(ctx context.Context, c dynamic.ResourceInterface) error {
			return c.Delete(ctx, "web", metav1.DeleteOptions{})
		}, true, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			namespace := testkit.Namespace(t)
			r := newRig(t, namespace)
			desired := parse(t, replaceNS(web, namespace))[0]
			r.ledger.Want(r.unit, []plan.Want{{ID: object.IDOf(desired)}})
			applied := r.apply(desired)[0]
			id := object.IDOf(applied)
			resource, err := r.cluster.Resources.Of(t.Context(), applied.GroupVersionKind())
			if err != nil {
				t.Fatal(err)
			}
			client := r.cluster.Dynamic.Resource(resource.GroupVersionResource).Namespace(namespace)
			if err := c.do(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			r.flush(client, id, c.gone)
			if got := r.drifts(id) > 0; got != c.drift {
				t.Errorf("drift told: %v, want %v: %s", got, c.drift, c.reason)
			}
			if c.gone {
				return
			}
			drifted := c.drift && c.name != "prune annotation"
			if got := r.state(id) == plan.Drifted; got != drifted {
				t.Errorf("drifted: %v, want %v: %s", got, drifted, c.reason)
			}
			healed(t, r, desired, drifted)
		})
	}
}

// healed applies again and expects the object to be in sync, and to stay so for a
// ledger that starts anew.
func healed(t *testing.T, r *rig, desired *unstructured.Unstructured, drifted bool) {
	t.Helper()
	id := object.IDOf(desired)
	if drifted {
		r.apply(desired)
	}
	if got := r.state(id); got != plan.InSync {
		t.Errorf("after healing the state is %v", got)
	}
	r.restart()
	if err := r.ledger.Watch(t.Context(), desired.GroupVersionKind()); err != nil {
		t.Fatal(err)
	}
	want, _ := r.dress(desired)
	if got := r.ledger.Adopt(id, want.Object); got != plan.InSync {
		t.Errorf("after a restart the healed object is adopted as %v", got)
	}
}

// flush waits until the ledger has seen what was done: the object's end, or its
// version.
func (r *rig) flush(client dynamic.ResourceInterface, id object.ID, gone bool) {
	r.t.Helper()
	if gone {
		r.eventually("the object is gone", func() bool { _, ok := r.ledger.Known(id); return !ok })
		r.eventually("its end is told", func() bool { return r.drifts(id) > 0 })
		return
	}
	live, err := client.Get(r.t.Context(), id.Name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	// A later change by us comes after it in the same watch.
	r.eventually("the ledger has caught up", func() bool {
		record, ok := r.ledger.Get(id)
		return ok && record.Version >= versionOf(live)
	})
}
