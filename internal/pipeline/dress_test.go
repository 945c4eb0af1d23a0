package pipeline

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestModeOf(t *testing.T) {
	cases := []struct {
		name, meta string
		want       plan.Mode
	}{
		{"none", `{}`, plan.Override},
		{"merge", `{annotations: {kustomize.toolkit.fluxcd.io/ssa: Merge}}`, plan.Merge},
		{"whatever case", `{annotations: {kustomize.toolkit.fluxcd.io/ssa: merge}}`, plan.Merge},
		{"if not present", `{annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}}`, plan.IfNotPresent},
		{"ignore", `{annotations: {kustomize.toolkit.fluxcd.io/ssa: Ignore}}`, plan.Ignore},
		{"reconcile disabled", `{annotations: {kustomize.toolkit.fluxcd.io/reconcile: disabled}}`, plan.Ignore},
		{"as a label", `{labels: {kustomize.toolkit.fluxcd.io/reconcile: disabled}}`, plan.Ignore},
		{"reconcile disabled counts most", `{annotations: {kustomize.toolkit.fluxcd.io/reconcile: disabled, kustomize.toolkit.fluxcd.io/ssa: Merge}}`, plan.Ignore},
		{"unknown word", `{annotations: {kustomize.toolkit.fluxcd.io/ssa: Sometimes}}`, plan.Override},
	}
	for _, c := range cases {
		if got := mark(Unit{}, parse(t, `metadata: `+c.meta)).Mode; got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDress(t *testing.T) {
	cluster, err := kube.NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, reason, text string
		want               string // the object without our labels and digest; "" for an error
		unknown            bool
	}{
		{"secret text", "the API server only reads stringData, and records no owner for it",
			`{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: apps}, data: {a: MQ==, b: eA==}, stringData: {b: "2"}}`,
			`{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: apps}, data: {a: MQ==, b: Mg==}}`, false},
		{"secret with nulls", "an explicit null is none", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: apps}, data: null, stringData: {a: "1"}}`,
			`{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: apps}, data: {a: MQ==}}`, false},
		{"secret with a number", "it has to be quoted", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: apps}, stringData: {a: 1}}`, "", false},
		{"stringData elsewhere", "only a Secret's is special", `{apiVersion: example.com/v1, kind: Secret, metadata: {name: s}, stringData: {a: 1}}`,
			`{apiVersion: example.com/v1, kind: Secret, metadata: {name: s}, stringData: {a: 1}}`, true},
		{"status", "status is not ours to write", `{apiVersion: v1, kind: Namespace, metadata: {name: apps}, status: {phase: Active}}`, `{apiVersion: v1, kind: Namespace, metadata: {name: apps}}`, false},
		{"namespace on a cluster-scoped object", "it has none", `{apiVersion: v1, kind: Namespace, metadata: {name: apps, namespace: wrong}}`, `{apiVersion: v1, kind: Namespace, metadata: {name: apps}}`, false},
		{"no namespace", "nobody could say which", `{apiVersion: v1, kind: ConfigMap, metadata: {name: apps}}`, "", false},
		{"labels that are null", "an explicit null is none", `{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: apps, labels: null, annotations: null}}`,
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: apps}}`, false},
		{"label that is a number", "others would be lost beside it", `{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: apps, labels: {a: 1, b: x}}}`, "", false},
		{"unknown kind", "apply reports it", `{apiVersion: example.com/v1, kind: Nothing, metadata: {name: x, namespace: apps}}`,
			`{apiVersion: example.com/v1, kind: Nothing, metadata: {name: x, namespace: apps}}`, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d, err := dress(t.Context(), Unit{}, cluster.Resources, []*unstructured.Unstructured{parse(t, c.text)})
			if c.want == "" {
				if failure.KindOf(err) != failure.Invalid {
					t.Errorf("got %v, want it refused: %s", err, c.reason)
				}
				return
			}
			if err != nil || len(d.wants) != 1 || d.unknown != c.unknown {
				t.Fatalf("got %+v, %v: %s", d, err, c.reason)
			}
			got := d.objects[d.wants[0].ID].DeepCopy()
			if got.GetAnnotations()[object.AppliedDigestAnnotation] != d.wants[0].Digest || d.wants[0].Digest != object.Digest(got) {
				t.Error("the digest on the object is not the one of the plan")
			}
			unstructured.RemoveNestedField(got.Object, "metadata", "labels")
			unstructured.RemoveNestedField(got.Object, "metadata", "annotations")
			if want := parse(t, c.want); object.Digest(got) != object.Digest(want) {
				t.Errorf("got %v, want %v: %s", got.Object, want.Object, c.reason)
			}
		})
	}
}

func TestWhoIsReplaced(t *testing.T) {
	const claim, consent = `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a}}`,
		`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, annotations: {kustomize.toolkit.fluxcd.io/force: enabled}}}`
	cases := []struct {
		name, reason, text string
		unit               Unit
		want               bool
	}{
		{"any kind", "the unit says so", `{apiVersion: batch/v1, kind: Job, metadata: {name: a}}`, Unit{Replace: true}, true},
		{"a claim", "nobody agreed to lose its data", claim, Unit{Replace: true}, false},
		{"a claim that says so", "the object itself is the consent", consent, Unit{}, true},
		{"without a budget", "every deletion is allowed", claim, Unit{Replace: true, Policy: plan.Policy{Budget: plan.Budget{Off: true}}}, true},
	}
	for _, c := range cases {
		if got := mark(c.unit, parse(t, c.text)).Replace; got != c.want {
			t.Errorf("%s: replaced: %t, want %t: %s", c.name, got, c.want, c.reason)
		}
	}
}

func TestInventories(t *testing.T) {
	entry := func(name string) plan.Entry {
		return plan.Entry{ID: object.ID{Kind: "ConfigMap", Namespace: "n", Name: name}, Version: "v1"}
	}
	action := func(verb plan.Verb, name string) plan.Action {
		return plan.Action{Verb: verb, ID: entry(name).ID, Version: "v1"}
	}
	failed := &failure.Error{Op: "x"}
	cases := []struct {
		name, reason string
		before       []string
		changes      []result
		intent       []string
		after        []string
	}{
		{"created", "it is on record before it is there", nil, []result{{Action: action(plan.Create, "a")}}, []string{"a"}, []string{"a"}},
		{"failed to create", "it may be there all the same", nil, []result{{Action: action(plan.Create, "a"), Err: failed}}, []string{"a"}, []string{"a"}},
		{"kept and skipped", "they stay", []string{"a"}, []result{{Action: action(plan.Keep, "a")}, {Action: action(plan.Skip, "b")}}, []string{"a", "b"}, []string{"a", "b"}},
		{"deleted", "it is gone", []string{"a", "b"}, []result{{Action: action(plan.Delete, "a")}}, []string{"a", "b"}, []string{"b"}},
		{"failed to delete", "it is still there", []string{"a"}, []result{{Action: action(plan.Delete, "a"), Err: failed}}, []string{"a"}, []string{"a"}},
		{"released", "it is let go", []string{"a"}, []result{{Action: action(plan.Release, "a")}}, []string{"a"}, nil},
		{"not tried", "nothing is known against it", []string{"a"}, nil, []string{"a"}, []string{"a"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var before []plan.Entry
			for _, name := range c.before {
				before = append(before, entry(name))
			}
			var actions []plan.Action
			for _, r := range c.changes {
				actions = append(actions, r.Action)
			}
			names := func(entries []plan.Entry) (out []string) {
				for _, e := range entries {
					out = append(out, e.ID.Name)
				}
				return out
			}
			if got := names(union(before, actions)); !slices.Equal(got, c.intent) {
				t.Errorf("intent %v, want %v: %s", got, c.intent, c.reason)
			}
			if got := names(inventoryAfter(before, c.changes)); !slices.Equal(got, c.after) {
				t.Errorf("afterwards %v, want %v: %s", got, c.after, c.reason)
			}
		})
	}
}
