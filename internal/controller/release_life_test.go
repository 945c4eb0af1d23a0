package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
)

// Values come from ConfigMaps and Secrets, a change of which takes effect at once; one
// that is missing is waited for, and what runs runs on.
func TestReleaseValuesFrom(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.ValuesFrom = []helmv2.ValuesReference{
			{Kind: "ConfigMap", Name: "values"}, {Kind: "Secret", Name: "maybe", Optional: true, ValuesKey: "v", TargetPath: "value"},
		}
	})
	s.awaitReleaseFailure("web", reasonValuesError, "spec.valuesFrom[0]", "ConfigMap/"+s.namespace+"/values")
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "values", Namespace: s.namespace}, Data: map[string]string{"values.yaml": "value: two"}})
	s.awaitReleased("web", 1)
	if got := s.config("web").Data["value"]; got != "two" {
		t.Errorf("the value is %q", got)
	}
	edit(s, s.config("values"), func(m *corev1.ConfigMap) { m.Data["values.yaml"] = "value: three" })
	s.awaitReleased("web", 2)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "maybe", Namespace: s.namespace}, StringData: map[string]string{"v": "four"}})
	s.awaitReleased("web", 3)
	if got := s.config("web").Data["value"]; got != "four" {
		t.Errorf("the value is %q", got)
	}
	if err := s.client.Delete(t.Context(), s.config("values")); err != nil {
		t.Fatal(err)
	}
	s.awaitReleaseFailure("web", reasonValuesError)
	if got := s.revisions("web"); len(got) != 3 || s.config("web").Data["value"] != "four" {
		t.Errorf("what was released did not run on: %v", got)
	}
	_ = h
}

func TestReleaseDependsOn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	s.release("web", func(h *helmv2.HelmRelease) { h.Spec.DependsOn = []meta.DependencyReference{{Name: "base"}} })
	s.awaitReleaseFailure("web", helmv2.DependencyNotReadyReason, "dependency '"+s.namespace+"/base' not found")
	s.release("expressive", func(h *helmv2.HelmRelease) {
		h.Spec.DependsOn = []meta.DependencyReference{{Name: "base", ReadyExpr: "dep.metadata.labels['go'] == self.metadata.name"}}
	})
	base := s.release("base")
	s.awaitReleased("base", 1)
	s.awaitReleased("web", 1)
	if h := s.helmRelease("expressive"); h.Status.History != nil {
		t.Error("it did not wait for its own expression")
	}
	edit(s, base, func(h *helmv2.HelmRelease) { h.Labels = map[string]string{"go": "expressive"} })
	s.awaitReleased("expressive", 1)
	edit(s, base, func(h *helmv2.HelmRelease) { h.Spec.DependsOn = []meta.DependencyReference{{Name: "web"}} })
	s.awaitReleaseFailure("base", report.ReasonCircularDependency, "→")
}

func (s *stage) helmRelease(name string) *helmv2.HelmRelease {
	s.Helper()
	h := &helmv2.HelmRelease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(h)
	return h
}

// storage is the release storage of the stage's namespace, as somebody else uses it.
func (s *stage) storage() *release.Store {
	s.Helper()
	cluster, err := kube.NewCluster(s.engine.config)
	if err != nil {
		s.Fatal(err)
	}
	store, err := release.NewStore(cluster, s.namespace, nil)
	if err != nil {
		s.Fatal(err)
	}
	return store
}

// A revision that somebody left pending is unlocked, and the release goes on.
func TestReleaseUnlocks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web")
	s.awaitReleased("web", 1)
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.Suspend = true })
	store := s.storage()
	last, err := store.Last(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	rel := *last.Release
	stale := release.Fresh(&rel, release.Marks{}, []release.Seen{last.Seen()}, time.Now().Add(-time.Hour))
	if err := store.Create(t.Context(), stale, 0); err != nil {
		t.Fatal(err)
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.Suspend = false })
	s.awaitReleased("web", 3)
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 superseded", "2 failed", "3 deployed"}) {
		t.Errorf("revisions %v", got)
	}
}

// What somebody else does to the storage is noticed at once, and put right.
func TestReleaseNoticesOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web")
	s.awaitReleased("web", 1)
	edit(s, h, withValues(map[string]any{"value": "two"}))
	s.awaitReleased("web", 2)
	store := s.storage()
	if err := store.Purge(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	s.awaitRelease("web", "installed anew", func(h *helmv2.HelmRelease) bool {
		return report.IsReady(h, h.Status.ObservedGeneration) && h.Status.History.Latest().Version == 1
	})
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 deployed"}) {
		t.Errorf("revisions %v", got)
	}
}

func TestReleaseKeeps(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", map[string]string{
		"templates/kept.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kept\n  annotations: {helm.sh/resource-policy: keep}\n",
		"templates/bye.yaml":  hook("bye", "post-delete"),
	}))
	h := s.release("web", func(h *helmv2.HelmRelease) { h.Spec.Uninstall = &helmv2.Uninstall{KeepHistory: true} })
	s.awaitReleased("web", 1)
	if err := s.client.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	s.config("kept")
	s.config("web-bye")
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web"}, &corev1.ConfigMap{}); err == nil {
		t.Error("it is still there")
	}
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 uninstalled"}) {
		t.Errorf("revisions %v", got)
	}
}

// Asking for a reconcile makes no revision; asking for a release does, once.
func TestReleaseRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web")
	s.awaitReleased("web", 1)
	token := s.ask(h)
	s.awaitRelease("web", "asked", func(h *helmv2.HelmRelease) bool { return h.Status.LastHandledReconcileAt == token })
	if got := s.revisions("web"); len(got) != 1 {
		t.Errorf("revisions %v", got)
	}
	edit(s, h, func(h *helmv2.HelmRelease) {
		h.Annotations[meta.ReconcileRequestAnnotation], h.Annotations[meta.ForceRequestAnnotation] = "now", "now"
	})
	forced := s.awaitReleased("web", 2)
	if forced.Status.LastHandledForceAt != "now" || forced.Status.LastHandledReconcileAt != "now" {
		t.Errorf("handled %q and %q", forced.Status.LastHandledForceAt, forced.Status.LastHandledReconcileAt)
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.MaxHistory = new(int) })
	s.awaitRelease("web", "observed", func(h *helmv2.HelmRelease) bool { return h.Status.ObservedGeneration == h.Generation })
	if got := s.revisions("web"); len(got) != 2 {
		t.Errorf("it was released again: %v", got)
	}
}

// Another name of the release uninstalls the one of before.
func TestReleaseMoves(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web")
	s.awaitReleased("web", 1)
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.ReleaseName = "other" })
	s.awaitRelease("web", "moved", func(h *helmv2.HelmRelease) bool {
		return report.IsReady(h, h.Status.ObservedGeneration) && h.Status.History.Latest() != nil && h.Status.History.Latest().Name == "other"
	})
	s.config("other")
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web"}, &corev1.ConfigMap{}); err == nil {
		t.Error("what had the old name is still there")
	}
	if got := s.revisions("web"); len(got) != 0 {
		t.Errorf("revisions %v", got)
	}
}

func TestReleaseBadCharts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c := chart("1.0.0", nil)
	s.charts(c)
	h := s.release("web")
	s.awaitReleased("web", 1)
	c.Version = "1.1.0"
	c.Files["templates/bad.yaml"] = "a: {{ .Values.nothing.more }}\n"
	s.push(c.In("charts"))
	s.awaitReleaseFailure("web", helmv2.UpgradeFailedReason, "bad.yaml")
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 deployed"}) || s.config("web").Data["value"] != "one" {
		t.Errorf("what was released did not run on: %v", got)
	}
	delete(c.Files, "templates/bad.yaml")
	s.repo.Delete("charts/web/templates/bad.yaml")
	c.Version = "1.2.0"
	c.Files["values.schema.json"] = `{"properties":{"value":{"type":"string"},"port":{"type":"integer"}}}`
	s.push(c.In("charts"))
	s.awaitReleased("web", 2)
	edit(s, h, withValues(map[string]any{"value": 1, "port": "x"}))
	failed := s.awaitReleaseFailure("web", helmv2.UpgradeFailedReason, "value", "port")
	if strings.Contains(report.Condition(failed, meta.ReadyCondition).Message, "\n") {
		t.Error("more than one line")
	}
}
