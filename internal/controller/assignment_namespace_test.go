package controller

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/report"
)

// A namespace that an assignment needs and Git holds as well is Git's: it is as Git says, nobody fights over it, and when Git gives it
// up it stays, because it is still needed.
func TestAssignedNamespaceOfGit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, config := memberStage(t, dir)
	team := func(word string) string {
		return "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: team\n  labels: {word: " + word + "}\n"
	}
	revision := s.push0(map[string]string{"job/a.yaml": configMap("job", "1"), "job/team.yaml": team("one")})
	a := s.copyOf("member-1", fleetv1.ClusterAssignmentSpec{
		Digest: "sha256:one", Sources: []fleetv1.AssignedSource{s.assignedSource("team")},
		Placements: []fleetv1.AssignedPlacement{s.placed("teams", nil, s.assignedUnit("team", "job"))},
	})
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:one")
	now := func() *corev1.Namespace {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}
		s.read(n)
		return n
	}
	settled := func(revision, word string) {
		s.Helper()
		k := s.in("team").awaitLive("job", revision)
		if n := now(); n.Labels["word"] != word || !n.DeletionTimestamp.IsZero() {
			s.Errorf("at %s the namespace is %+v, want the word %q", revision, n.ObjectMeta, word)
		}
		if has := strings.Contains(entriesOf(k), "_team__Namespace"); has != (word != "") {
			s.Errorf("at %s the inventory of the unit is %s", revision, entriesOf(k))
		}
		s.awaitUnit("fleet-sources", "ready", readyNow)
	}
	settled(revision, "one")
	uid := now().UID
	settled(s.in("team").push(map[string]string{"job/team.yaml": team("two")}), "two")

	if err := s.engine.stop(); err != nil {
		t.Fatal(err)
	}
	s.engine = engineFor(t, config, func(o *Options) { o.DataDir = dir })
	settled(s.in("team").push(map[string]string{"job/team.yaml": team("three")}), "three")
	// The assignment changes, and what it needs stays Git's.
	reassign(s, a, func(a *fleetv1.ClusterAssignment) {
		a.Spec.Sources, a.Spec.Digest = append(a.Spec.Sources, s.assignedSource(s.namespace)), "sha256:two"
	})
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:two")
	settled(s.in("team").push(map[string]string{"job/team.yaml": team("four")}), "four")

	revision = s.in("team").remove("job/team.yaml")
	k := s.in("team").awaitLive("job", revision)
	if n := now(); n.UID != uid || !n.DeletionTimestamp.IsZero() || strings.Contains(entriesOf(k), "Namespace") {
		t.Errorf("Git gave the namespace up, which is still needed: %+v, and the unit has %s", n.ObjectMeta, entriesOf(k))
	}
	reassign(s, a, func(a *fleetv1.ClusterAssignment) { a.Spec.Leave = fleetv1.DeletionPolicyDelete })
	s.awaitCarriedOut(a.Name, fleetv1.ReasonLeft, "sha256:two")
	if n := now(); n.UID != uid || !n.DeletionTimestamp.IsZero() {
		t.Errorf("the member left, and the namespace went with it: %+v", n.ObjectMeta)
	}
}

func readyNow(k *kustomizev1.Kustomization) bool {
	return report.IsReady(k, k.Status.ObservedGeneration)
}

func entriesOf(k *kustomizev1.Kustomization) string {
	var all []string
	for _, e := range k.Status.Inventory.Entries {
		all = append(all, e.ID)
	}
	return strings.Join(all, " ")
}
