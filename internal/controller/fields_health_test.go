package controller

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
)

func healthy(k *kustomizev1.Kustomization, status metav1.ConditionStatus) bool {
	c := report.Condition(k, meta.HealthyCondition)
	return c != nil && c.Status == status
}

// With wait, ready means that everything delivered is healthy.
func TestWait(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": deployment("web", "image", 2), "app/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	k := s.awaitLive("app", revision)
	if !healthy(k, metav1.ConditionTrue) {
		t.Errorf("not said to be healthy: %s", standingOf(k))
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: s.namespace}}
	s.read(d)
	if d.Status.ReadyReplicas != 2 {
		t.Errorf("ready with %d of 2 replicas", d.Status.ReadyReplicas)
	}
}

// Without wait and health checks, ready means applied.
func TestWithoutWait(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": deployment("web", "does-not-exist", 1)})
	s.source()
	s.unit("app")
	if k := s.awaitLive("app", revision); report.Condition(k, meta.HealthyCondition) != nil {
		t.Errorf("says something about health that it has not looked at: %s", standingOf(k))
	}
}

// Health checks name objects, also such as somebody else delivers; what is
// not named may be as it likes. With wait they are ignored.
func TestHealthChecks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/a.yaml": deployment("unnamed", "does-not-exist", 1), "ignoring/a.yaml": configMap("ignoring", "1"),
	})
	s.source()
	checks := []meta.NamespacedObjectKindReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "foreign", Namespace: s.namespace}}
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.HealthChecks = checks })
	s.unit("ignoring", func(k *kustomizev1.Kustomization) { k.Spec.HealthChecks, k.Spec.Wait = checks, true })
	s.awaitLive("ignoring", revision)
	k := s.awaitUnit("app", "waiting", func(k *kustomizev1.Kustomization) bool {
		c := report.Condition(k, meta.ReadyCondition)
		return c != nil && strings.Contains(c.Message, "Deployment/"+s.namespace+"/foreign is InProgress: does not exist yet")
	})
	if !healthy(k, metav1.ConditionUnknown) || report.Condition(k, meta.ReconcilingCondition) == nil {
		t.Errorf("waiting, it says: %s", standingOf(k))
	}
	s.create(runningDeployment("foreign", s.namespace))
	if k := s.awaitLive("app", revision); !healthy(k, metav1.ConditionTrue) {
		t.Errorf("not said to be healthy: %s", standingOf(k))
	}
}

// What the status says is waited for is what is waited for now, not what was when the
// wait began: an object that somebody else delivers comes later, and may be unhealthy then.
func TestWaitingIsToldAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("app", "1")})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "foreign"}}
	})
	waits := func(why string) {
		s.awaitUnit("app", "waiting: "+why, func(k *kustomizev1.Kustomization) bool {
			c := report.Condition(k, meta.HealthyCondition)
			return c != nil && c.Status == metav1.ConditionUnknown && strings.Contains(c.Message, why) && says(k, metav1.ConditionUnknown, meta.ProgressingReason, why)
		})
	}
	waits("does not exist yet")
	foreign := runningDeployment("foreign", s.namespace)
	foreign.Spec.Template.Spec.Containers[0].Image = "registry.test/web:does-not-exist"
	s.create(foreign)
	waits("image cannot be pulled: registry.test/web:does-not-exist")
	edit(s, foreign, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image" })
	s.awaitLive("app", revision)
}

// A wait for health ends at the timeout, which is never below the toolkit's least
// of 30 s, and names the cause. What gets healthy afterwards is seen at once: the
// retry interval is longer than the test.
func TestTimeout(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"failing/a.yaml": deployment("web", "registry.test/web:does-not-exist", 1)}
	for _, name := range []string{"late", "default"} {
		files[name+"/a.yaml"] = configMap(name, "1")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	shortly := &metav1.Duration{Duration: 3 * time.Second}
	s.unit("failing", func(k *kustomizev1.Kustomization) { k.Spec.Wait, k.Spec.Timeout = true, shortly })
	waits := []meta.NamespacedObjectKindReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "foreign", Namespace: s.namespace}}
	s.unit("late", func(k *kustomizev1.Kustomization) { k.Spec.Timeout, k.Spec.HealthChecks = shortly, waits })
	s.unit("default", func(k *kustomizev1.Kustomization) {
		k.Spec.Timeout, k.Spec.Interval, k.Spec.HealthChecks = nil, *shortly, waits
	})
	k := s.awaitFailure("failing", meta.HealthCheckFailedReason, "Deployment/"+s.namespace+"/web", "image cannot be pulled: registry.test/web:does-not-exist")
	if !healthy(k, metav1.ConditionFalse) || k.Status.LastAppliedRevision != "" || k.Status.LastAttemptedRevision != revision {
		t.Errorf("applied %q, attempted %q: %s", k.Status.LastAppliedRevision, k.Status.LastAttemptedRevision, standingOf(k))
	}
	for _, name := range []string{"late", "default"} {
		s.awaitFailure(name, meta.HealthCheckFailedReason, "Deployment/"+s.namespace+"/foreign", "does not exist yet")
	}
	s.create(runningDeployment("foreign", s.namespace))
	for _, name := range []string{"late", "default"} {
		if k := s.awaitLive(name, revision); !healthy(k, metav1.ConditionTrue) {
			t.Errorf("%s: not said to be healthy: %s", name, standingOf(k))
		}
	}
	next := s.push(map[string]string{"failing/a.yaml": deployment("web", "registry.test/web:1", 1)})
	s.awaitLive("failing", next)
}

// A health check needs neither version nor namespace: the toolkit's default and
// the Kustomization's own are taken. One of a kind that the cluster lacks says so,
// and goes on when the kind appears.
func TestHealthCheckDefaults(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	group := s.namespace + ".test"
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"short/a.yaml": deployment("short", "image", 0), "kind/a.yaml": configMap("kind", "1"), "present/a.yaml": annotated(configMap("present", "1"), "ssa", "IfNotPresent"),
		"definition/a.yaml": thingDefinition(s.namespace), "definition/b.yaml": "apiVersion: " + group + "/v1\nkind: Thing\nmetadata:\n  name: one\n",
	})
	present := s.aMap("present")
	s.create(present)
	s.source()
	check := func(r meta.NamespacedObjectKindReference) func(*kustomizev1.Kustomization) {
		return func(k *kustomizev1.Kustomization) { k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{r} }
	}
	s.unit("short", check(meta.NamespacedObjectKindReference{Kind: "Deployment", Name: "short"}))
	s.unit("kind", check(meta.NamespacedObjectKindReference{APIVersion: group + "/v1", Kind: "Thing", Name: "one"}))
	s.unit("present", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	s.awaitLive("short", revision)
	s.awaitLive("present", revision)
	s.awaitFailure("kind", meta.HealthCheckFailedReason, "spec.healthChecks[0]", "Thing", "does not serve this kind")
	s.unit("definition")
	s.awaitLive("kind", revision)
}

// What only a dry run can tell is looked at again after the interval, whatever
// else went on in between.
func TestIntervalRechecks(t *testing.T) {
	t.Parallel()
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name, reason string
		checked      time.Time
		after        time.Duration
		want         bool
	}{
		{name: "first", reason: "nothing is known yet", after: 0, want: true},
		{name: "before", reason: "the interval is not over", checked: begin, after: 59 * time.Second},
		{name: "after", reason: "the interval is over", checked: begin, after: time.Minute, want: true},
	} {
		a := attempt{checked: row.checked}
		if got := a.recheck(begin.Add(row.after), time.Minute); got != row.want {
			t.Errorf("%s: %s: got %t", row.name, row.reason, got)
		}
		a.begin("new inputs", begin)
		if !a.checked.Equal(row.checked) {
			t.Errorf("%s: new inputs count as a look", row.name)
		}
	}
}

// What fails for a reason that no event tells of is tried again at the retry
// interval at the latest.
func TestRetryInterval(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: s.namespace}}
	quota.Spec.Hard = corev1.ResourceList{"count/secrets": *mustQuantity("0")}
	s.create(quota)
	s.awaitQuota(quota.Name)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n"})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second} })
	s.awaitFailure("app", meta.ReconciliationFailedReason, "Secret/"+s.namespace+"/s", "quota")
	if err := s.client.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	s.awaitLive("app", revision)
}

// A Kustomization that is suspended does nothing: no new revision, no healing.
func TestSuspend(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "other/b.yaml": configMap("b", "1")})
	s.source()
	k := s.unit("app")
	s.unit("other")
	s.awaitLive("app", first)
	s.awaitLive("other", first)
	edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.Suspend = true })
	edit(s, s.config("a"), func(m *corev1.ConfigMap) { m.Data["value"] = "edited" })
	second := s.push(map[string]string{"app/a.yaml": configMap("a", "2"), "other/b.yaml": configMap("b", "2")})
	s.awaitLive("other", second)
	s.read(k)
	if got := s.config("a").Data["value"]; got != "edited" || k.Status.LastAppliedRevision != first {
		t.Errorf("suspended, it holds %q at %s", got, k.Status.LastAppliedRevision)
	}
	edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.Suspend = false })
	s.awaitLive("app", second)
	if got := s.config("a").Data["value"]; got != "2" {
		t.Errorf("resumed, it holds %q", got)
	}
}
