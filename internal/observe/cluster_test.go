package observe

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// settle bounds how long the cluster may take to tell what a test did.
const settle = 20 * time.Second

// testManager is the field manager of the tests' applies.
const testManager = "kustomize-controller"

// rig is a ledger on the real API server, with an applier that tells it what it sends.
type rig struct {
	t       *testing.T
	cluster *kube.Cluster
	ledger  *Ledger
	applier *apply.Applier
	unit    types.NamespacedName
	stop    context.CancelFunc // ends the ledger

	mu      sync.Mutex
	changes []Change
}

func newRig(t *testing.T, namespace string) *rig {
	t.Helper()
	cluster, err := kube.NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cluster: cluster, unit: types.NamespacedName{Namespace: namespace, Name: "unit"}}
	r.restart()
	return r
}

// restart replaces the ledger by an empty one, as a new process has it.
func (r *rig) restart() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.t.Cleanup(stop)
	r.ledger = NewLedger(ctx, Options{Cluster: r.cluster, Manager: testManager, Clock: clock.RealClock{},
		Log: testr.New(r.t), Notify: r.notify})
	r.applier = &apply.Applier{Cluster: r.cluster, Manager: testManager, Journal: r.ledger, Observe: r.ledger,
		Slots: make(chan struct{}, 8), Count: func(string) {}}
}

func (r *rig) notify(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, c)
}

// drifts counts the notifications of drift of an object.
func (r *rig) drifts(id object.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.changes {
		if c.ID == id && c.Drift {
			n++
		}
	}
	return n
}

// dress gives the object what an applied object carries.
func (r *rig) dress(u *unstructured.Unstructured) (*unstructured.Unstructured, plan.Want) {
	u = u.DeepCopy()
	object.SetOwner(u, object.Owner{Group: object.KustomizeGroup, Name: r.unit.Name, Namespace: r.unit.Namespace})
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[object.AppliedDigestAnnotation] = object.Digest(u)
	u.SetAnnotations(annotations)
	return u, plan.Want{ID: object.IDOf(u), Version: u.GroupVersionKind().Version, Digest: annotations[object.AppliedDigestAnnotation]}
}

// apply delivers the objects in one plan each and waits for definitions.
func (r *rig) apply(objects ...*unstructured.Unstructured) []*unstructured.Unstructured {
	r.t.Helper()
	var out []*unstructured.Unstructured
	for _, u := range objects {
		u, want := r.dress(u)
		p := &plan.Plan{Actions: []plan.Action{{Verb: plan.Create, ID: want.ID, Version: want.Version, Digest: want.Digest}}}
		if err := r.applier.Apply(r.t.Context(), p, plan.Objects{want.ID: u}).Err(); err != nil {
			r.t.Fatal(err)
		}
		if u.GetKind() == "CustomResourceDefinition" {
			r.eventually("the definition is established", func() bool { ready, _ := r.ledger.Ready(want.ID); return ready })
		}
		out = append(out, u)
	}
	return out
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	err := wait.PollUntilContextTimeout(r.t.Context(), 5*time.Millisecond, settle, true, func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		r.t.Fatalf("waited in vain until %s", what)
	}
}

func (r *rig) state(id object.ID) plan.State {
	r.t.Helper()
	known, ok := r.ledger.Known(id)
	if !ok {
		r.t.Fatalf("the ledger does not know %s", id)
	}
	return known.State
}

// live reads an object as it is.
func (r *rig) live(u *unstructured.Unstructured) *unstructured.Unstructured {
	r.t.Helper()
	live, err := r.applier.Live(r.t.Context(), plan.Action{ID: object.IDOf(u), Version: u.GroupVersionKind().Version})
	if err != nil || live == nil {
		r.t.Fatalf("read %s: %v", object.IDOf(u), err)
	}
	return live
}

func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	reader := yamlutil.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := reader.Read()
		if err != nil {
			return out
		}
		data, err := yaml.YAMLToJSON(doc)
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
			continue
		}
		if err := u.UnmarshalJSON(data); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
}

func corpus(t *testing.T, namespace string) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile("testdata/corpus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, replaceNS(string(data), namespace))
}

func replaceNS(text, namespace string) string { return strings.ReplaceAll(text, "NS", namespace) }

func versionOf(u *unstructured.Unstructured) uint64 {
	n, _ := strconv.ParseUint(u.GetResourceVersion(), 10, 64)
	return n
}
