package controller

import (
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An object that one commit moves from one Kustomization to another is never
// deleted, whichever of the two is looked at first.
func TestHandOver(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		giver, taker func(*kustomizev1.Kustomization)
	}{
		{name: "side by side", reason: "both are looked at in any order"},
		{
			name: "taker later", reason: "the taker depends on the giver, so the giver is done first",
			taker: func(k *kustomizev1.Kustomization) {
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "giver"}}
			},
		},
		{
			name: "giver later", reason: "the giver depends on the taker, so the taker is first",
			giver: func(k *kustomizev1.Kustomization) {
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "taker"}}
				k.Spec.RetryInterval = &metav1.Duration{Duration: time.Second}
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			first := "main@sha1:" + s.repo.Commit(map[string]string{
				"giver/moves.yaml": configMap("moves", "1"), "giver/stays.yaml": configMap("stays", "1"),
				"taker/own.yaml": configMap("own", "1"),
			})
			s.source()
			s.unit("giver", orNothing(row.giver))
			s.unit("taker", orNothing(row.taker))
			s.awaitLive("giver", first)
			s.awaitLive("taker", first)
			uid := s.config("moves").UID

			s.repo.Commit(map[string]string{"taker/moves.yaml": configMap("moves", "2")})
			// One commit for both: only its result is ever seen by the engine.
			second := s.remove("giver/moves.yaml")
			s.awaitLive("giver", second)
			k := s.awaitLive("taker", second)
			m := s.config("moves")
			if m.UID != uid {
				t.Errorf("it was deleted and made anew, although %s", row.reason)
			}
			if m.Data["value"] != "2" || m.Labels["kustomize.toolkit.fluxcd.io/name"] != "taker" {
				t.Errorf("it holds %v and belongs to %s", m.Data, m.Labels["kustomize.toolkit.fluxcd.io/name"])
			}
			if n := len(k.Status.Inventory.Entries); n != 2 {
				t.Errorf("the taker's inventory holds %d objects, want 2", n)
			}
		})
	}
}

func orNothing(change func(*kustomizev1.Kustomization)) func(*kustomizev1.Kustomization) {
	if change == nil {
		return func(*kustomizev1.Kustomization) {}
	}
	return change
}

// While a Kustomization of the same source cannot be built, nobody knows what
// it wants, and nothing is deleted that it might have taken over. All else is
// delivered, and the deletions follow once it can be built.
func TestHandOverToWhatCannotBeBuilt(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{
		"giver/moves.yaml": configMap("moves", "1"), "giver/goes.yaml": configMap("goes", "1"), "giver/stays.yaml": configMap("stays", "1"),
		"taker/own.yaml": configMap("own", "1"),
	})
	s.source()
	s.unit("giver")
	s.unit("taker")
	s.awaitLive("giver", first)
	s.awaitLive("taker", first)
	uid := s.config("moves").UID

	s.repo.Commit(map[string]string{"taker/moves.yaml": configMap("moves", "2"), "taker/own.yaml": "kind: [", "giver/stays.yaml": configMap("stays", "2")})
	s.remove("giver/moves.yaml", "giver/goes.yaml")
	s.awaitFailure("giver", meta.PruneFailedReason, "it may have been handed over", s.namespace+"/taker", "taker/own.yaml")
	s.awaitFailure("taker", meta.BuildFailedReason)
	if got := s.config("stays").Data["value"]; got != "2" || !s.there("moves") || !s.there("goes") {
		t.Errorf("meanwhile stays holds %q; moves is there: %t, goes: %t", got, s.there("moves"), s.there("goes"))
	}
	third := s.push(map[string]string{"taker/own.yaml": configMap("own", "3")})
	s.awaitLive("giver", third)
	s.awaitLive("taker", third)
	if m := s.config("moves"); m.UID != uid || m.Data["value"] != "2" || s.there("goes") {
		t.Errorf("it was handed over: %t, holds %q; what goes is there: %t", m.UID == uid, m.Data["value"], s.there("goes"))
	}
}

// When two Kustomizations want one object, the first keeps it, the second says who
// has it; it takes the object as soon as the first lets go.
func TestTwoWantOneObject(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{
		"first/a.yaml": configMap("disputed", "first"), "first/b.yaml": configMap("b", "1"),
		"second/a.yaml": configMap("disputed", "second"), "second/c.yaml": configMap("c", "1"),
	})
	s.source()
	s.unit("first")
	s.awaitLive("first", first)
	uid := s.config("disputed").UID
	s.unit("second")
	s.awaitFailure("second", meta.ReconciliationFailedReason,
		"ConfigMap/"+s.namespace+"/disputed", "it is delivered by Kustomization "+s.namespace+"/first")
	if got := s.config("disputed").Data["value"]; got != "first" {
		t.Errorf("it holds what %s wants", got)
	}

	s.remove("first/a.yaml")
	s.awaitUnit("second", "ready", func(k *kustomizev1.Kustomization) bool {
		return says(k, metav1.ConditionTrue, meta.ReconciliationSucceededReason)
	})
	m := s.config("disputed")
	if m.UID != uid || m.Data["value"] != "second" {
		t.Errorf("after the first let go: uid %s, want %s; value %q, want second", m.UID, uid, m.Data["value"])
	}
}

// A Kustomization that is deleted lets go of what another one wants.
func TestDeletedUnitHandsOver(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{
		"first/a.yaml": configMap("disputed", "first"), "second/a.yaml": configMap("disputed", "second"),
	})
	s.source()
	k := s.unit("first")
	s.awaitLive("first", first)
	uid := s.config("disputed").UID
	s.unit("second")
	s.awaitFailure("second", meta.ReconciliationFailedReason, "it is delivered by Kustomization")
	if err := s.client.Delete(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	s.awaitLive("second", first)
	if m := s.config("disputed"); m.UID != uid || m.Data["value"] != "second" {
		t.Errorf("it was not handed over: uid %s, want %s; value %q", m.UID, uid, m.Data["value"])
	}
}
