package observe

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const gadgets = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.NS.example.com}
spec:
  group: NS.example.com
  scope: Namespaced
  names: {kind: Gadget, plural: gadgets}
  versions: [{name: v1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: NS.example.com/v1
kind: Gadget
metadata: {name: one, namespace: NS}
spec: {size: 1}
`

// A kind that goes takes its records with it and wakes their owners; when it
// comes back, it is watched again.
func TestKindGoesAndComesBack(t *testing.T) {
	t.Parallel()
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	both := parse(t, replaceNS(gadgets, namespace))
	definition, gadget := both[0], both[1]
	r.apply(both...)
	id := object.IDOf(gadget)
	for range 2 {
		before := r.drifts(id)
		definitions := r.cluster.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
		if err := definitions.Delete(t.Context(), definition.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.eventually("the owner is told that its object went", func() bool { return r.drifts(id) > before })
		r.eventually("the kind is known to be gone", func() bool {
			return errors.Is(r.ledger.Watch(t.Context(), gadget.GroupVersionKind()), kube.ErrUnknownKind)
		})
		if _, known := r.ledger.Known(id); known {
			t.Fatal("an object of a kind that is gone is still known")
		}
		r.apply(both...)
		if got := r.state(id); got != plan.InSync {
			t.Fatalf("made anew, the object is %v", got)
		}
	}
}

func TestWatchRefused(t *testing.T) {
	namespace := testkit.Namespace(t)
	cases := []struct {
		name, reason string
		edit         func(*rest.Config)
		kind         failure.Kind
	}{
		{"forbidden", "permission is missing", func(c *rest.Config) { c.Impersonate.UserName = "nobody" }, failure.Denied},
		{"unreachable", "the API server is away", func(c *rest.Config) { c.Host = "https://127.0.0.1:1" }, failure.Unavailable},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, namespace)
			resource, err := r.cluster.Resources.Of(t.Context(), schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
			if err != nil {
				t.Fatal(err)
			}
			config := testkit.Cluster(t)
			c.edit(config)
			refused, err := kube.NewCluster(config)
			if err != nil {
				t.Fatal(err)
			}
			refused.Resources = r.cluster.Resources
			r.cluster = refused
			r.restart()
			for range 2 { // and again: the failed watch is not in the way of the next
				err = r.ledger.Watch(t.Context(), resource.GroupKind().WithVersion("v1"))
				if failure.KindOf(err) != c.kind {
					t.Errorf("got %v of kind %q, want %q: %s", err, failure.KindOf(err), c.kind, c.reason)
				}
			}
		})
	}
}

func TestWatchComesBackAfterAnOutage(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	cluster, err := kube.NewCluster(instance.Config)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cluster: cluster, unit: types.NamespacedName{Namespace: "default", Name: "unit"}}
	r.restart()
	objects := parse(t, replaceNS(`{apiVersion: v1, kind: ConfigMap, metadata: {name: one, namespace: NS}, data: {a: "1"}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: two, namespace: NS}, data: {a: "1"}}
`, "default"))
	r.apply(objects...)
	instance.Kill()
	instance.Start()
	client := cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("default")
	if err := client.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	one, two := object.IDOf(objects[0]), object.IDOf(objects[1])
	r.eventually("the deletion is seen", func() bool { return r.drifts(one) > 0 })
	if r.state(two) != plan.InSync || r.drifts(two) > 0 {
		t.Error("an object that nobody touched drifted over the outage")
	}
}

// Following an object that others deliver tells of its health and of its end,
// to all units that asked and to no others.
func TestFollow(t *testing.T) {
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	deployment := parse(t, replaceNS(web, namespace))[0]
	ref := Reference{ID: object.IDOf(deployment), Version: "v1"}
	a, b := types.NamespacedName{Namespace: namespace, Name: "a"}, types.NamespacedName{Namespace: namespace, Name: "b"}
	if err := r.ledger.Follow(t.Context(), a, []Reference{ref}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the first is told that it is not there", func() bool { return r.told(a, ref.ID) == 1 })
	if err := r.ledger.Follow(t.Context(), b, []Reference{ref}); err != nil { // who finds that out by itself
		t.Fatal(err)
	}
	if h := r.ledger.Health(types.NamespacedName{}, []object.ID{ref.ID}); h.Ready() || len(h.Waiting) != 1 {
		t.Errorf("what does not exist is not waited for: %+v", h)
	}
	client := r.cluster.Dynamic.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(namespace)
	made, err := client.Create(t.Context(), deployment, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("both are told that it is there", func() bool { return r.told(a, ref.ID) == 2 && r.told(b, ref.ID) == 1 })
	if err := r.ledger.Follow(t.Context(), a, nil); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedMap(made.Object, map[string]any{"observedGeneration": int64(1), "replicas": int64(2), "updatedReplicas": int64(2),
		"readyReplicas": int64(2), "availableReplicas": int64(2)}, "status"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is healthy", func() bool { return r.ledger.Health(types.NamespacedName{}, []object.ID{ref.ID}).Ready() })
	r.eventually("who still follows is told", func() bool { return r.told(b, ref.ID) == 2 })
	if err := client.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("it is waited for again", func() bool { return !r.ledger.Health(types.NamespacedName{}, []object.ID{ref.ID}).Ready() })
	if n := r.told(a, ref.ID); n != 2 {
		t.Errorf("a unit that follows no more was told %d times, want twice", n)
	}
}

func (r *rig) told(unit types.NamespacedName, id object.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.changes {
		if c.ID == id && c.Owner == unit && c.Health {
			n++
		}
	}
	return n
}

func TestFollowForbidden(t *testing.T) {
	namespace := testkit.Namespace(t)
	config := testkit.Cluster(t)
	config.Impersonate.UserName = "nobody"
	refused, err := kube.NewCluster(config)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, namespace)
	refused.Resources = r.cluster.Resources
	r.cluster = refused
	r.restart()
	ref := Reference{ID: object.ID{Kind: "ConfigMap", Namespace: namespace, Name: "x"}, Version: "v1"}
	if err := r.ledger.Follow(t.Context(), r.unit, []Reference{ref}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the message says that permission is missing", func() bool {
		h := r.ledger.Health(types.NamespacedName{}, []object.ID{ref.ID})
		return len(h.Waiting) == 1 && h.Waiting[0].Verdict.Status == health.Unknown && strings.Contains(h.Waiting[0].Verdict.Message, "forbidden")
	})
}

// No watch outlives its ledger.
func TestWatchesEndWithTheLedger(t *testing.T) {
	namespace := testkit.Namespace(t)
	r := newRig(t, namespace)
	r.apply(parse(t, replaceNS(web, namespace))...)
	if n := ledgerGoroutines(); n == 0 {
		t.Fatal("no watch runs: this test proves nothing")
	}
	r.stop()
	r.eventually("all watches have ended", func() bool { return ledgerGoroutines() == 0 })
}

func ledgerGoroutines() int {
	buf := make([]byte, 4<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "created by github.com/bowline-dev/bowline/internal/observe.(*Ledger).start")
}
