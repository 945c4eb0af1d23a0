package release

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/go-logr/logr/testr"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// rig is one release on the real API server. The test stands in for the controllers that run jobs.
type rig struct {
	t         *testing.T
	namespace string
	unit      types.NamespacedName
	cluster   *kube.Cluster
	client    kubernetes.Interface
	store     *Store
	records   Records
	ledger    *observe.Ledger
	live      *Live
	clock     clock.PassiveClock
	woken     chan struct{}
}

func newRig(t *testing.T, namespace string) *rig {
	t.Helper()
	client, err := kubernetes.NewForConfig(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, namespace: namespaceOf(t, namespace), cluster: clusterOf(t), client: client, clock: clock.RealClock{},
		woken: make(chan struct{}, 1),
	}
	r.unit, r.store = types.NamespacedName{Namespace: r.namespace, Name: "demo"}, storeIn(t, r.namespace, nil)
	r.records = r.store
	r.live = &Live{Cluster: r.cluster, Slots: make(chan struct{}, 4), Count: func(string) {}}
	r.ledger = observe.NewLedger(t.Context(), observe.Options{
		Cluster: r.cluster, Manager: Manager, Group: "helm.toolkit.fluxcd.io", Clock: clock.RealClock{}, Log: testr.New(t),
		Notify: func(observe.Change) {
			select {
			case r.woken <- struct{}{}:
			default:
			}
		},
	})
	return r
}

func (r *rig) hooks() *Hooks {
	return &Hooks{Live: r.live, Records: r.records, Follow: r.ledger, Clock: r.clock, Unit: r.unit}
}

// begin stores a pending revision with these hooks.
func (r *rig) begin(manifest string, hooks ...*helmrelease.Hook) *Record {
	r.t.Helper()
	rel := demo(r.namespace)
	rel.Manifest, rel.Hooks = manifest, hooks
	record := Fresh(rel, Marks{Unit: r.unit.String(), Inputs: "in", Action: v2.ReleaseActionUpgrade}, nil, day)
	if err := r.store.Create(r.t.Context(), record, 0); err != nil {
		r.t.Fatal(err)
	}
	return record
}

// again reads the revision as a new process does.
func (r *rig) again(ctx context.Context) *Record {
	r.t.Helper()
	record, err := r.store.Last(ctx, "demo")
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// drive calls the step whenever it is woken, and acts in between, until it has ended.
func (r *rig) drive(step func(context.Context) (Progress, error), act func(Progress)) Progress {
	r.t.Helper()
	deadline := time.After(settle)
	for {
		p, err := step(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if p.ended() {
			return p
		}
		act(p)
		select {
		case <-r.woken:
		case <-deadline:
			r.t.Fatalf("nobody was woken while %s", p.Waits)
		}
	}
}

func (r *rig) run(record *Record, event helmrelease.HookEvent) func(context.Context) (Progress, error) {
	return func(ctx context.Context) (Progress, error) {
		return r.hooks().Advance(ctx, HookRun{Record: record, Event: event, Timeout: time.Minute})
	}
}

// end has the job that is waited for end, well or not. What is waited for otherwise is left alone.
func (r *rig) end(p Progress, failed bool) {
	if p.Object.ID.Kind != "Job" || strings.Contains(p.Waits, "being deleted") {
		return
	}
	r.t.Helper()
	jobs := r.client.BatchV1().Jobs(r.namespace)
	job, err := jobs.Get(r.t.Context(), p.Object.ID.Name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	now := metav1.Now()
	job.Status.StartTime = &now
	if failed {
		job.Status.Conditions = append(job.Status.Conditions,
			batchv1.JobCondition{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded"},
			batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "it has reached the limit"})
	} else {
		job.Status.CompletionTime = &now
		job.Status.Conditions = append(job.Status.Conditions,
			batchv1.JobCondition{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue},
			batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue})
	}
	if _, err := jobs.UpdateStatus(r.t.Context(), job, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) well(p Progress)  { r.t.Helper(); r.end(p, false) }
func (r *rig) badly(p Progress) { r.t.Helper(); r.end(p, true) }

func (r *rig) jobThere(name string) bool {
	r.t.Helper()
	_, err := r.client.BatchV1().Jobs(r.namespace).Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		r.t.Fatal(err)
	}
	return err == nil
}

func jobHook(name string, weight int, event helmrelease.HookEvent, policies ...helmrelease.HookDeletePolicy) *helmrelease.Hook {
	return &helmrelease.Hook{
		Name: name, Kind: "Job", Path: "demo/templates/" + name + ".yaml", Events: []helmrelease.HookEvent{event}, Weight: weight, DeletePolicies: policies,
		Manifest: fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: %s\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{name: main, image: example.org/none}]\n", name),
	}
}

func mapHook(name string, weight int, event helmrelease.HookEvent) *helmrelease.Hook {
	return &helmrelease.Hook{
		Name: name, Kind: "ConfigMap", Path: "demo/templates/" + name + ".yaml", Events: []helmrelease.HookEvent{event}, Weight: weight,
		Manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n",
	}
}
