package pipeline

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/local"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// rig is the whole main loop on the real API server, without controllers: the
// test is the controller of each unit and keeps its inventory.
type rig struct {
	t         *testing.T
	namespace string
	group     string // of the units; empty: Kustomizations
	cluster   *kube.Cluster
	pipeline  *Pipeline
	target    Target
	ledger    *observe.Ledger
	intents   int
	inventory map[string][]plan.Entry

	mu     sync.Mutex
	counts map[string]int // requests, and "build"
	drifts map[object.ID]int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	cluster, err := kube.NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, namespace: testkit.Namespace(t), cluster: cluster, counts: map[string]int{}, inventory: map[string][]plan.Entry{}}
	r.restart()
	return r
}

// restart begins with nothing in memory, as a new process does.
func (r *rig) restart() {
	ctx, stop := context.WithCancel(context.Background())
	r.t.Cleanup(stop)
	// The ledger before this one goes on until the test ends: each tells of its own.
	drifts := map[object.ID]int{}
	r.drifts = drifts
	r.ledger = observe.NewLedger(ctx, observe.Options{Cluster: r.cluster, Manager: "kustomize-controller", Group: r.group, Clock: clock.RealClock{}, Log: testr.New(r.t),
		Notify: func(c observe.Change) {
			if c.Drift {
				r.mu.Lock()
				defer r.mu.Unlock()
				drifts[c.ID]++
			}
		}})
	applier := &apply.Applier{Cluster: r.cluster, Manager: "kustomize-controller", Journal: r.ledger, Observe: r.ledger, Slots: make(chan struct{}, 8), Count: r.count}
	applier.Group = r.group
	r.target = Target{Cluster: r.cluster, Ledger: r.ledger, Applier: applier}
	r.pipeline = New(func(ctx context.Context, tree source.Tree, recipe build.Recipe) (build.Result, error) {
		r.count("build")
		return kustomize.Build(ctx, tree, recipe)
	})
	for name, entries := range r.inventory {
		var ids []object.ID
		for _, e := range entries {
			ids = append(ids, e.ID)
		}
		r.ledger.Claim(r.name(name), ids, false)
	}
}

func (r *rig) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

// spent returns what was sent and built since it was last asked.
func (r *rig) spent() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.counts
	r.counts = map[string]int{}
	return out
}

func (r *rig) name(unit string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.namespace, Name: unit}
}

// unit delivers the folder of its name.
func (r *rig) unit(name string) Unit {
	return Unit{Name: r.name(name), Recipe: build.Recipe{Path: name}, Inventory: r.inventory[name], Policy: plan.Policy{Prune: true, Budget: plan.DefaultBudget()}}
}

// commit is a source with these files; NS stands for the namespace of the test.
func (r *rig) commit(files map[string]string) source.Artifact {
	r.t.Helper()
	dir := r.t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "NS", r.namespace)), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	tree, err := local.Open(dir, local.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = tree.Close() })
	artifact, err := tree.Artifact()
	if err != nil {
		r.t.Fatal(err)
	}
	return artifact
}

// run delivers a unit once.
func (r *rig) run(u Unit, a source.Artifact) (Outcome, error) {
	r.t.Helper()
	out, err := r.pipeline.Run(r.t.Context(), u, r.target, a, func(_ context.Context, entries []plan.Entry) error {
		r.intents++
		r.inventory[u.Name.Name] = entries
		return nil
	})
	r.inventory[u.Name.Name] = out.Inventory
	return out, err
}

// deliver runs a unit until nothing is pending, and counts only that.
func (r *rig) deliver(name string, a source.Artifact) Outcome {
	r.t.Helper()
	var out Outcome
	var err error
	r.eventually("the unit is delivered", func() bool {
		out, err = r.run(r.unit(name), a)
		return err == nil
	}, func() any { return err })
	return out
}

func (r *rig) eventually(what string, ok func() bool, detail ...func() any) {
	r.t.Helper()
	err := wait.PollUntilContextTimeout(r.t.Context(), 5*time.Millisecond, 15*time.Second, true, func(context.Context) (bool, error) { return ok(), nil })
	if err == nil {
		return
	}
	for _, d := range detail {
		r.t.Log(d())
	}
	r.t.Fatalf("waited in vain until %s", what)
}

func configMap(name, data string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: NS}\ndata: {a: \"" + data + "\"}\n"
}

func (r *rig) id(name string) object.ID {
	return object.ID{Kind: "ConfigMap", Namespace: r.namespace, Name: name}
}

// data returns what a ConfigMap holds, and "" when there is none.
func (r *rig) data(name string) string {
	r.t.Helper()
	live, err := r.target.Applier.Live(r.t.Context(), plan.Action{ID: r.id(name), Version: "v1"})
	if err != nil {
		r.t.Fatal(err)
	}
	if live == nil {
		return ""
	}
	value, _, _ := unstructured.NestedString(live.Object, "data", "a")
	return value
}

// edit changes a ConfigMap behind our back.
func (r *rig) edit(name, patch string) {
	r.t.Helper()
	client := r.cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(r.namespace)
	if _, err := client.Patch(r.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "intruder"}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) drifted(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drifts[r.id(name)] > 0
}

func (r *rig) neighbours(names ...string) Neighbours {
	return func(context.Context) []Neighbour {
		var out []Neighbour
		for _, name := range names {
			out = append(out, Neighbour{Unit: r.unit(name)})
		}
		return out
	}
}
