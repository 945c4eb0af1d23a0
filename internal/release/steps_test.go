package release

import (
	"context"
	"errors"
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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
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
func (r *rig) again() *Record {
	r.t.Helper()
	record, err := r.store.Last(r.t.Context(), "demo")
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

func TestHooksRunInOrderAndAreRecorded(t *testing.T) {
	r := newRig(t, "hooks-order")
	pre := helmrelease.HookPreUpgrade
	record := r.begin("", jobHook("last", 5, pre), jobHook("b-first", -5, pre, helmrelease.HookSucceeded), mapHook("a-first", -5, pre),
		jobHook("other", 0, helmrelease.HookPostUpgrade))
	var order []string
	p := r.drive(r.run(record, pre), func(p Progress) {
		order = append(order, p.Hook)
		stored := r.again()
		for _, h := range stored.Hooks {
			if h.Name == p.Hook && h.LastRun.Phase != helmrelease.HookPhaseRunning {
				t.Errorf("%s runs and is recorded as %q", h.Name, h.LastRun.Phase)
			}
		}
		r.well(p)
	})
	if !p.Done || p.Failed != nil {
		t.Fatalf("ended with %+v", p)
	}
	if got := strings.Join(order, " "); !strings.HasPrefix(got, "b-first") || !strings.HasSuffix(got, "last") {
		t.Errorf("waited for %s", got)
	}
	for _, h := range r.again().Hooks {
		want := helmrelease.HookPhaseSucceeded
		if h.Name == "other" {
			want = ""
		}
		if h.LastRun.Phase != want || want != "" && (h.LastRun.StartedAt.IsZero() || h.LastRun.CompletedAt.Before(h.LastRun.StartedAt)) {
			t.Errorf("%s is recorded as %+v", h.Name, h.LastRun)
		}
	}
	if r.jobThere("b-first") || !r.jobThere("last") {
		t.Error("a hook with the policy hook-succeeded is left, or one without it is gone")
	}
	// In the same process it is known; another one finds it in the record and runs nothing.
	for _, seen := range []*Record{record, r.again()} {
		if p, err := r.run(seen, pre)(t.Context()); err != nil || !p.Done {
			t.Errorf("asked again: %+v, %v", p, err)
		}
	}
	if r.jobThere("b-first") {
		t.Error("a hook ran again")
	}
}

func TestAHookThatFails(t *testing.T) {
	r := newRig(t, "hooks-fail")
	pre := helmrelease.HookPreUpgrade
	record := r.begin("", mapHook("first", 0, pre), jobHook("second", 1, pre, helmrelease.HookFailed), jobHook("third", 2, pre))
	record.Hooks[0].DeletePolicies = []helmrelease.HookDeletePolicy{helmrelease.HookSucceeded}
	p := r.drive(r.run(record, pre), r.badly)
	if p.Failed == nil || p.Hook != "second" || !strings.Contains(p.Failed.Error(), "it has reached the limit") {
		t.Fatalf("ended with %+v", p)
	}
	if r.jobThere("second") || r.jobThere("third") {
		t.Error("the failed hook is left, or one after it ran")
	}
	if _, err := r.client.CoreV1().ConfigMaps(r.namespace).Get(t.Context(), "first", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the hook before it, with the policy hook-succeeded, gave %v", err)
	}
	stored := r.again()
	if stored.Hooks[1].LastRun.Phase != helmrelease.HookPhaseFailed || stored.Hooks[2].LastRun.Phase != "" {
		t.Errorf("recorded %+v, %+v", stored.Hooks[1].LastRun, stored.Hooks[2].LastRun)
	}
	if p, err := r.run(stored, pre)(t.Context()); err != nil || p.Failed == nil {
		t.Errorf("asked again, another process says %+v, %v", p, err)
	}
	p = r.drive(func(ctx context.Context) (Progress, error) {
		restart := stored.Hooks[1].LastRun.Phase == helmrelease.HookPhaseFailed
		return r.hooks().Advance(ctx, HookRun{Record: stored, Event: pre, Timeout: time.Minute, Restart: restart})
	}, r.well)
	if !p.Done {
		t.Errorf("begun anew it ended with %+v", p)
	}
}

func TestAHookThatHangs(t *testing.T) {
	r := newRig(t, "hooks-hang")
	fake := clocktesting.NewFakePassiveClock(time.Now())
	r.clock = fake
	record := r.begin("", jobHook("slow", 0, helmrelease.HookPreUpgrade))
	p, err := r.run(record, helmrelease.HookPreUpgrade)(t.Context())
	if err != nil || p.ended() || !p.Until.Equal(record.Hooks[0].LastRun.StartedAt.Add(time.Minute)) {
		t.Fatalf("begun: %+v, %v", p, err)
	}
	fake.SetTime(fake.Now().Add(time.Minute))
	h := r.hooks()
	h.Explain = func(context.Context, observe.Reference) string { return "its image cannot be pulled" }
	p, err = h.Advance(t.Context(), HookRun{Record: record, Event: helmrelease.HookPreUpgrade, Timeout: time.Minute})
	if err != nil || !errors.Is(p.Failed, failure.Of(failure.Timeout)) || !strings.Contains(p.Failed.Error(), "its image cannot be pulled") {
		t.Fatalf("after its time: %+v, %v", p, err)
	}
}

// cut is a storage whose writes end in a crash, before or after they are made.
type cut struct {
	Records
	writes int // until the crash
	after  bool
}

var errCrash = errors.New("the engine was killed")

func (c *cut) crash(write func() error) error {
	if c.writes--; c.writes > 0 {
		return write()
	}
	if c.after {
		if err := write(); err != nil {
			return err
		}
	}
	return errCrash
}

func (c *cut) Update(ctx context.Context, r *Record) error {
	return c.crash(func() error { return c.Records.Update(ctx, r) })
}

func (c *cut) Mark(ctx context.Context, r *Record) error {
	return c.crash(func() error { return c.Records.Mark(ctx, r) })
}

// TestInterruptedAnywhere kills the engine at each of its writes, before and after it, and lets
// another go on: each hook's object is made exactly once.
func TestInterruptedAnywhere(t *testing.T) {
	for writes := 1; writes <= 5; writes++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, after it %v", writes, after), func(t *testing.T) {
				r := newRig(t, fmt.Sprintf("hooks-kill-%d-%v", writes, after))
				pre := helmrelease.HookPreUpgrade
				record := r.begin("", jobHook("one", 0, pre, helmrelease.HookSucceeded), jobHook("two", 1, pre))
				made := r.countJobs()
				r.records = &cut{Records: r.store, writes: writes, after: after}
				crashed := false
				p := r.drive(func(ctx context.Context) (Progress, error) {
					p, err := r.run(record, pre)(ctx)
					if errors.Is(err, errCrash) {
						crashed, r.records, record = true, r.store, r.again()
						p, err = r.run(record, pre)(ctx)
					}
					return p, err
				}, r.well)
				if !p.Done || !crashed {
					t.Fatalf("ended with %+v, crashed %v", p, crashed)
				}
				if got := made(); got["one"] != 1 || got["two"] != 1 {
					t.Errorf("made %v", got)
				}
			})
		}
	}
}

// countJobs counts how often a job of each name is made from now on.
func (r *rig) countJobs() func() map[string]int {
	r.t.Helper()
	list, err := r.client.BatchV1().Jobs(r.namespace).List(r.t.Context(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := r.client.BatchV1().Jobs(r.namespace).Watch(r.t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(w.Stop)
	return func() map[string]int {
		// The last event is that of a job made here.
		end := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "the-end"}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "example.org/none"}}},
		}}}
		if _, err := r.client.BatchV1().Jobs(r.namespace).Create(r.t.Context(), end, metav1.CreateOptions{}); err != nil {
			r.t.Fatal(err)
		}
		uids, made := map[types.UID]bool{}, map[string]int{}
		for event := range w.ResultChan() {
			job, ok := event.Object.(*batchv1.Job)
			if ok && job.Name == "the-end" {
				break
			}
			if ok && !uids[job.UID] {
				uids[job.UID] = true
				made[job.Name]++
			}
		}
		return made
	}
}

func TestWhatAnEarlierRunLeftIsRemovedFirst(t *testing.T) {
	r := newRig(t, "hooks-leftover")
	pre := helmrelease.HookPreUpgrade
	first := r.begin("", jobHook("migrate", 0, pre))
	if p := r.drive(r.run(first, pre), r.well); !p.Done {
		t.Fatalf("the first ended with %+v", p)
	}
	old, err := r.client.BatchV1().Jobs(r.namespace).Get(t.Context(), "migrate", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody holds it, so that it does not go at once.
	old.Finalizers = []string{"example.org/hold"}
	if _, err := r.client.BatchV1().Jobs(r.namespace).Update(t.Context(), old, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	second := Fresh(first.Release, first.Marks, []Seen{first.Seen()}, day)
	if err := r.store.Create(t.Context(), second, 0); err != nil {
		t.Fatal(err)
	}
	waited := false
	p := r.drive(r.run(second, pre), func(p Progress) {
		if strings.Contains(p.Waits, "being deleted") {
			waited = true
			patch := []byte(`{"metadata":{"finalizers":null}}`)
			if _, err := r.client.BatchV1().Jobs(r.namespace).Patch(t.Context(), "migrate", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
			return
		}
		r.well(p)
	})
	if !p.Done || !waited {
		t.Fatalf("ended with %+v, waited %v", p, waited)
	}
	now, err := r.client.BatchV1().Jobs(r.namespace).Get(t.Context(), "migrate", metav1.GetOptions{})
	if err != nil || now.UID == old.UID {
		t.Errorf("the job of the earlier run was taken for this one: %v", err)
	}
}

func TestOwnership(t *testing.T) {
	r := newRig(t, "ownership")
	make := func(name string, labels, annotations map[string]string) observe.Reference {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion("v1")
		u.SetKind("ConfigMap")
		u.SetNamespace(r.namespace)
		u.SetName(name)
		u.SetLabels(labels)
		u.SetAnnotations(annotations)
		if labels != nil || annotations != nil {
			if err := r.live.send(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
		return referenceOf(u)
	}
	helms := map[string]string{managedByLabel: managedByHelm}
	of := func(name string) map[string]string {
		return map[string]string{releaseAnnotation: name, namespaceAnnotation: r.namespace}
	}
	claim := Claim{Unit: r.unit, Name: "demo", Namespace: r.namespace, Objects: []observe.Reference{
		make("absent", nil, nil), make("ours", helms, of("demo")),
		make("delivered", map[string]string{"helm.toolkit.fluxcd.io/name": "demo", "helm.toolkit.fluxcd.io/namespace": r.namespace}, nil),
	}}
	if err := r.live.CheckOwnership(t.Context(), claim); err != nil {
		t.Errorf("what is absent or ours is refused: %v", err)
	}
	claim.Objects = append(claim.Objects, make("nobodys", map[string]string{"a": "b"}, nil), make("others", helms, of("other")))
	err := r.live.CheckOwnership(t.Context(), claim)
	if !errors.Is(err, ErrForeign) || !errors.Is(err, failure.Of(failure.Refused)) {
		t.Fatalf("gave %v", err)
	}
	for _, want := range []string{"ConfigMap/" + r.namespace + "/nobodys (of no release)", "ConfigMap/" + r.namespace + "/others (of release " + r.namespace + "/other)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func crd(t *testing.T, plural, description string) *unstructured.Unstructured {
	t.Helper()
	var u unstructured.Unstructured
	data, err := yaml.YAMLToJSON(fmt.Appendf(nil, `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.release.example.org, annotations: {about: %[2]q}}
spec:
  group: release.example.org
  scope: Namespaced
  names: {plural: %[1]s, singular: %[1]s, kind: Kind%[1]s}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`, plural, description))
	if err != nil {
		t.Fatal(err)
	}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return &u
}

func TestDefinitions(t *testing.T) {
	r := newRig(t, "definitions")
	plural := strings.ReplaceAll(r.namespace, "-", "") // of this run: definitions outlive it
	for _, c := range []struct {
		name   string
		policy v2.CRDsPolicy
		about  string
		want   string
		reason string
	}{
		{"skip", v2.Skip, "one", "", "nothing is installed"},
		{"create", "", "two", "two", "Create is the default"},
		{"create again", v2.Create, "three", "two", "what is there stays"},
		{"replace", v2.CreateReplace, "four", "four", "what is there is applied anew"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &Definitions{
				Live: r.live, Follow: r.ledger, Clock: r.clock, Unit: r.unit, Policy: c.policy, Timeout: time.Minute,
				Objects: []*unstructured.Unstructured{crd(t, plural, c.about)},
			}
			if p := r.drive(d.Advance, func(Progress) {}); !p.Done {
				t.Fatalf("ended with %+v", p)
			}
			live, err := r.live.whole(t.Context(), referenceOf(d.Objects[0]))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if live != nil {
				got = live.GetAnnotations()["about"]
				if _, ok := condition(live, "Established"); !ok {
					t.Error("it is not established")
				}
			}
			if got != c.want {
				t.Errorf("it is about %q, want %q: %s", got, c.want, c.reason)
			}
		})
	}
	d := &Definitions{Live: r.live, Follow: r.ledger, Clock: r.clock, Unit: r.unit, Policy: "Sometimes"}
	if p, err := d.Advance(t.Context()); err != nil || !errors.Is(p.Failed, failure.Of(failure.Invalid)) {
		t.Errorf("a policy that there is none of gave %+v, %v", p, err)
	}
}

func TestUninstall(t *testing.T) {
	r := newRig(t, "uninstall")
	const manifest = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
---
apiVersion: v1
kind: Secret
metadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [example.org/hold]}
---
apiVersion: gone.example.org/v1
kind: Gone
metadata: {name: gone}
`
	record := r.begin(manifest, jobHook("before", 0, helmrelease.HookPreDelete), jobHook("after", 0, helmrelease.HookPostDelete, helmrelease.HookSucceeded))
	for i, doc := range strings.Split(manifest, "---\n")[1:5] {
		u, err := r.live.read(t.Context(), doc, r.namespace)
		if err != nil {
			t.Fatal(err)
		}
		name := "demo"
		if i == 2 {
			name = "other"
		}
		Dress(u, name, r.namespace)
		if err := r.live.send(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	run := &Removal{Hooks: r.hooks(), Store: r.store, Record: record, Spec: v2.Uninstall{KeepHistory: true}, Timeout: time.Minute, Action: v2.ReleaseActionUninstall}
	var waits []string
	p := r.drive(func(ctx context.Context) (Progress, error) { return run.Advance(ctx) }, func(p Progress) {
		waits = append(waits, p.Object.ID.Name)
		if p.Object.ID.Name == "held" {
			if got := r.again().Info.Status; got != "uninstalling" {
				t.Errorf("meanwhile it is %s", got)
			}
			if _, err := r.client.CoreV1().ConfigMaps(r.namespace).Patch(t.Context(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
			// Another process goes on from here.
			run = &Removal{Hooks: r.hooks(), Store: r.store, Record: r.again(), Spec: run.Spec, Timeout: time.Minute, Action: run.Action}
			return
		}
		r.well(p)
	})
	if !p.Done || waits[0] != "before" || waits[len(waits)-1] != "after" {
		t.Fatalf("ended with %+v after %v", p, waits)
	}
	if got := r.again(); got.Info.Status != "uninstalled" || got.Info.Deleted.IsZero() {
		t.Errorf("recorded %+v", got.Info)
	}
	maps, err := r.client.CoreV1().ConfigMaps(r.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		if m.Name == "plain" || m.Name == "held" {
			t.Errorf("%s is left", m.Name)
		}
	}
	if _, err := r.client.CoreV1().Secrets(r.namespace).Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("what is to be kept gave %v", err)
	}
	if got := strings.Join(run.Left, "; "); !strings.Contains(got, "Secret/"+r.namespace+"/kept") || !strings.Contains(got, "ConfigMap/"+r.namespace+"/foreign (it is not of this release)") {
		t.Errorf("left is told as %s", got)
	}
	// Without history nothing is recorded any more.
	run.Spec.KeepHistory = false
	if p, err := run.Advance(t.Context()); err != nil || !p.Done {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := r.store.Last(t.Context(), "demo"); !errors.Is(err, ErrAbsent) {
		t.Errorf("without history the storage gives %v", err)
	}
}
