package controller

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/report"
)

// None of these units comes back by itself within the life of the test: whatever
// they wait for has to wake them.

// A commit that moves a chain of dependencies on tells no unit to be unready.
func TestCommitThroughAChainFlapsNoStatus(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	units := []string{"one", "two", "three"}
	files := func(value string) map[string]string {
		return map[string]string{"one/a.yaml": configMap("one", value), "two/a.yaml": configMap("two", value), "three/a.yaml": configMap("three", value)}
	}
	first := "main@sha1:" + s.repo.Commit(files("1"))
	s.source()
	s.unit("three", dependsOn("two"))
	s.unit("two", dependsOn("one"))
	s.unit("one")
	for _, unit := range units {
		s.awaitLive(unit, first)
	}
	told := s.writes(units)
	second := s.push(files("2"))
	for _, unit := range units {
		s.awaitLive(unit, second)
	}
	if words := told(); strings.Contains(words, "Ready=False") {
		t.Errorf("a unit said that it was not ready:\n%s", words)
	}
}

func dependsOn(names ...string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		for _, name := range names {
			k.Spec.DependsOn = append(k.Spec.DependsOn, kustomizev1.DependencyReference{Name: name})
		}
	}
}

// A unit whose dependency fails says so, and goes on at once when that is mended.
func TestDependencyMended(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"base/a.yaml": "a: [", "app/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("app", dependsOn("base"))
	s.awaitFailure("app", meta.DependencyNotReadyReason, s.namespace+"/base' not found")
	s.unit("base")
	s.awaitFailure("base", meta.BuildFailedReason, "base/a.yaml:1")
	s.awaitFailure("app", meta.DependencyNotReadyReason, s.namespace+"/base' is not ready")
	second := s.push(map[string]string{"base/a.yaml": configMap("a", "1")})
	s.awaitLive("app", second)
}

// Members of a cycle say so and go on when it is broken.
func TestCycleBroken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"one/a.yaml": configMap("a", "1"), "two/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("one", dependsOn("two"))
	two := s.unit("two", dependsOn("one"))
	one, other := s.namespace+"/one", s.namespace+"/two"
	s.awaitFailure("one", "CircularDependency", one+" → "+other+" → "+one)
	s.awaitFailure("two", "CircularDependency", other+" → "+one+" → "+other)
	edit(s, two, func(k *kustomizev1.Kustomization) { k.Spec.DependsOn = nil })
	s.awaitLive("two", first)
	s.awaitLive("one", first)
}

// What is suspended is left alone, by commits and by requests, and catches up when
// it is resumed.
func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "still/b.yaml": configMap("b", "1")})
	s.source()
	app, still := s.unit("app"), s.unit("still")
	s.awaitLive("app", first)
	s.awaitLive("still", first)
	suspend := func(on bool) func(*kustomizev1.Kustomization) {
		return func(k *kustomizev1.Kustomization) { k.Spec.Suspend = on }
	}
	edit(s, still, suspend(true))
	s.ask(still)
	if err := s.client.Delete(t.Context(), s.config("b")); err != nil {
		t.Fatal(err)
	}
	second := s.push(map[string]string{"app/a.yaml": configMap("a", "2"), "still/b.yaml": configMap("b", "2")})
	s.awaitLive("app", second)
	// The other unit went through all of it while this one had the same events.
	s.read(still)
	if still.Status.LastAppliedRevision != first || still.Status.LastHandledReconcileAt != "" || len(s.deliveredConfigs()) != 1 {
		t.Errorf("a suspended unit was worked on: %+v, %v", still.Status, s.deliveredConfigs())
	}
	edit(s, still, suspend(false))
	s.awaitLive("still", second)
	s.config("b")

	fleet := s.fleet()
	edit(s, fleet, func(g *sourcev1.GitRepository) { g.Spec.Suspend = true })
	third := s.push(map[string]string{"app/a.yaml": configMap("a", "3")})
	request := s.ask(app)
	s.awaitUnit("app", "asked", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == request })
	s.awaitLive("app", second)
	edit(s, fleet, func(g *sourcev1.GitRepository) { g.Spec.Suspend = false })
	s.awaitLive("app", third)
}

// A request is answered in the status, on success and on failure, and repeats a
// failed attempt.
func TestRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	app := s.unit("app")
	answered := func(request string) func(*kustomizev1.Kustomization) bool {
		return func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == request }
	}
	s.awaitUnit("app", "answered", answered(s.ask(app)))
	s.push(map[string]string{"app/b.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\nimmutable: true\ndata: {a: x}\n"})
	s.awaitUnit("app", "live", func(*kustomizev1.Kustomization) bool { return len(s.deliveredConfigs()) == 2 })
	last := s.push(map[string]string{"app/b.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\nimmutable: true\ndata: {a: y}\n"})
	s.awaitFailure("app", meta.ReconciliationFailedReason, "/b", "immutable", "kustomize.toolkit.fluxcd.io/force")
	s.awaitUnit("app", "answered with the failure", answered(s.ask(app)))
	s.awaitFailure("app", meta.ReconciliationFailedReason, "/b", "immutable")
	// Somebody makes room on the cluster; no commit and no request follow.
	if err := s.client.Delete(t.Context(), s.config("b")); err != nil {
		t.Fatal(err)
	}
	s.awaitLive("app", last)
}

// An object that two units want stays with the first, and the second gets it as
// soon as the first gives it up.
func TestTwoUnitsWantOneObject(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{
		"one/a.yaml": configMap("a", "1"), "one/x.yaml": configMap("x", "1"), "two/a.yaml": configMap("a", "2"),
	})
	s.source()
	s.unit("one")
	s.awaitLive("one", first)
	before := s.deliveredConfigs()
	s.unit("two")
	s.awaitFailure("two", meta.ReconciliationFailedReason, "ConfigMap/"+s.namespace+"/a", "it is delivered by Kustomization "+s.namespace+"/one", "remove it from one of the two")
	s.untouched(before)
	second := s.remove("one/a.yaml")
	s.awaitLive("one", second)
	s.awaitLive("two", second)
	m := await(s, &corev1.ConfigMapList{}, "a", "that of two", func(m *corev1.ConfigMap) bool {
		return m.Labels[object.KustomizeGroup+"/name"] == "two" && m.Data["value"] == "2"
	})
	if string(m.UID) != before["a"].uid {
		t.Error("it was deleted and made anew on its way from one unit to the other")
	}
}

// A unit that was deleted and made again with the same name is another unit.
func TestUnitMadeAgain(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	for range 3 {
		k := s.unit("app")
		s.awaitLive("app", first)
		s.config("a")
		if err := s.client.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		s.awaitGone(k, &kustomizev1.KustomizationList{})
		s.awaitGone(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: s.namespace}}, &corev1.ConfigMapList{})
	}
}

// Somebody who keeps changing an object is told of once for each healing that has
// to wait, also while the unit has failed, and loses in the end.
func TestContestedWhileFailing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	files := map[string]string{}
	for _, name := range spare {
		files["app/"+name+".yaml"] = configMap(name, "1")
	}
	first := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	// Deletions that wait for approval: the unit has failed, and is not tried again for hours.
	var gone []string
	for _, name := range spare {
		gone = append(gone, "app/"+name+".yaml")
	}
	s.remove(gone...)
	s.awaitFailure("app", report.ReasonApprovalRequired, "waiting to delete")

	for range 12 {
		m := s.config("a")
		m.Data["value"] = "theirs"
		if err := s.client.Update(t.Context(), m, client.FieldOwner("them")); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
	await(s, &corev1.ConfigMapList{}, "a", "healed", func(m *corev1.ConfigMap) bool { return m.Data["value"] == "1" })
	events := &corev1.EventList{}
	if err := s.client.List(t.Context(), events, client.InNamespace(s.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == report.ReasonDriftContested && !strings.Contains(e.Message, "them keeps changing it") {
			t.Errorf("the event says: %s", e.Message)
		}
	}
}
