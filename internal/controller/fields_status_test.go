package controller

import (
	"slices"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/report"
)

// The status of a Kustomization through a success, a request, a failure and a
// change of the spec.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": deployment("b", "image", 0)})
	s.source()
	s.unit("app")
	k := s.awaitLive("app", first)
	if !controllerutil.ContainsFinalizer(k, kustomizev1.KustomizationFinalizer) {
		t.Error("no finalizer: what it delivers would be left when it is deleted")
	}
	want := []kustomizev1.ResourceRef{{ID: s.namespace + "_a__ConfigMap", Version: "v1"}, {ID: s.namespace + "_b_apps_Deployment", Version: "v1"}}
	if !slices.Equal(k.Status.Inventory.Entries, want) {
		t.Errorf("inventory %v, want %v", k.Status.Inventory.Entries, want)
	}
	s.says(k, "after a success", metav1.ConditionTrue, meta.ReconciliationSucceededReason, "Applied revision: "+first)
	if k.Status.LastAttemptedRevision != first || k.Status.ObservedGeneration != k.Generation {
		t.Errorf("attempted %q, observed generation %d of %d", k.Status.LastAttemptedRevision, k.Status.ObservedGeneration, k.Generation)
	}
	s.history(k, "after a success", first, 1)

	request := s.ask(s.kustomization("app"))
	k = s.awaitUnit("app", "asked", func(k *kustomization) bool { return k.Status.LastHandledReconcileAt == request })
	s.history(k, "after a request", first, 2)

	second := s.push(map[string]string{"app/a.yaml": "kind: ConfigMap\n  broken"})
	k = s.awaitFailure("app", meta.BuildFailedReason, "app/a.yaml")
	if k.Status.LastAttemptedRevision != second || k.Status.LastAppliedRevision != first || !slices.Equal(k.Status.Inventory.Entries, want) {
		t.Errorf("after a failure: attempted %q, applied %q, inventory %v", k.Status.LastAttemptedRevision, k.Status.LastAppliedRevision, k.Status.Inventory.Entries)
	}
	third := s.push(map[string]string{"app/a.yaml": configMap("a", "3")})
	k = s.awaitLive("app", third)
	s.history(k, "after another content", third, 1)
	if report.Condition(k, meta.StalledCondition) != nil || report.Condition(k, meta.ReconcilingCondition) != nil {
		t.Errorf("after a recovery it says: %s", standingOf(k))
	}
	edit(s, s.kustomization("app"), func(k *kustomization) { k.Spec.NamePrefix = "new-" })
	k = s.awaitUnit("app", "delivered with the new spec", func(k *kustomization) bool {
		return k.Status.ObservedGeneration == k.Generation && says(k, "True", meta.ReconciliationSucceededReason)
	})
	want = []kustomizev1.ResourceRef{{ID: s.namespace + "_new-a__ConfigMap", Version: "v1"}, {ID: s.namespace + "_new-b_apps_Deployment", Version: "v1"}}
	if !slices.Equal(k.Status.Inventory.Entries, want) || s.there("a") {
		t.Errorf("inventory %v, want %v; a is there: %t", k.Status.Inventory.Entries, want, s.there("a"))
	}
}

func (s *stage) says(k *kustomization, when string, status metav1.ConditionStatus, reason, message string) {
	s.Helper()
	c := report.Condition(k, meta.ReadyCondition)
	if c == nil || c.Status != status || c.Reason != reason || c.Message != message || c.ObservedGeneration != k.Generation {
		s.Errorf("%s it says: %s", when, standingOf(k))
	}
}

// history checks the newest entry: its revision, and how often it was delivered.
func (s *stage) history(k *kustomization, when, revision string, times int64) {
	s.Helper()
	if len(k.Status.History) == 0 {
		s.Errorf("%s there is no history", when)
		return
	}
	h := k.Status.History[0]
	if h.Metadata["revision"] != revision || h.TotalReconciliations != times ||
		h.LastReconciledStatus != meta.ReconciliationSucceededReason || h.Digest == "" || h.LastReconciled.IsZero() {
		s.Errorf("%s the history begins with %+v, want %s, delivered %d times", when, h, revision, times)
	}
}
