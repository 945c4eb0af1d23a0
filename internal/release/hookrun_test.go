package release

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/observe"
)

func TestHooksRunInOrderAndAreRecorded(t *testing.T) {
	r := newRig(t, "hooks-order")
	pre := helmrelease.HookPreUpgrade
	record := r.begin("", jobHook("last", 5, pre), jobHook("b-first", -5, pre, helmrelease.HookSucceeded), mapHook("a-first", -5, pre),
		jobHook("other", 0, helmrelease.HookPostUpgrade))
	var order []string
	p := r.drive(r.run(record, pre), func(p Progress) {
		order = append(order, p.Hook)
		stored := r.again(t.Context())
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
	for _, h := range r.again(t.Context()).Hooks {
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
	for _, seen := range []*Record{record, r.again(t.Context())} {
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
	stored := r.again(t.Context())
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
						crashed, r.records, record = true, r.store, r.again(ctx)
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
