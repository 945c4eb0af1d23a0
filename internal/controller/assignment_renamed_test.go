package controller

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// A unit that another Placement has from now on, because the one before was renamed or split, is handed over with all that runs:
// nothing of it is deleted, and nothing made anew.
func TestAssignmentRenamed(t *testing.T) {
	t.Parallel()
	s, _ := memberStage(t, t.TempDir())
	revision := s.push0(map[string]string{"web/a.yaml": configMap("web", "1"), "cache/a.yaml": configMap("cache", "1")})
	a := s.copyOf("member-1", fleetv1.ClusterAssignmentSpec{
		Digest: "sha256:one", Sources: []fleetv1.AssignedSource{s.assignedSource(s.namespace)},
		Sync:       []fleetv1.AssignedUnit{s.assignedUnit(s.namespace, "cache")},
		Placements: []fleetv1.AssignedPlacement{s.placed("before", nil, s.assignedUnit(s.namespace, "web"))},
	})
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:one")
	uids := map[string]string{}
	for _, name := range []string{"web", "cache"} {
		s.awaitLive(name, revision)
		uids["Kustomization "+name], uids["ConfigMap "+name] = string(s.kustomizationNow(name).UID), string(s.config(name).UID)
	}
	reassign(s, a, func(a *fleetv1.ClusterAssignment) {
		a.Spec.Digest, a.Spec.Sync = "sha256:two", nil
		a.Spec.Placements = []fleetv1.AssignedPlacement{s.placed("after", nil, s.assignedUnit(s.namespace, "web"), s.assignedUnit(s.namespace, "cache"))}
	})
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:two")
	for _, name := range []string{"placement-before", "fleet-sync"} {
		s.awaitGone(&kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}, &kustomizev1.KustomizationList{})
	}
	for _, name := range []string{"web", "cache"} {
		s.awaitLive(name, revision)
		for kind, o := range map[string]client.Object{"Kustomization ": s.kustomizationNow(name), "ConfigMap ": s.config(name)} {
			if o.GetDeletionTimestamp() != nil || string(o.GetUID()) != uids[kind+name] {
				t.Errorf("%s%s was deleted, or made anew", kind, name)
			}
		}
	}
}
