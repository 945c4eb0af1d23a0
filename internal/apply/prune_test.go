package apply

import (
	"slices"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

func TestPruneNeedsTheUID(t *testing.T) {
	r := newRig(t)
	r.must(config)
	live := r.live("ConfigMap", "config")
	action := plan.Action{Verb: plan.Delete, ID: object.IDOf(live), Version: "v1", UID: "another"}
	if err := r.Prune(t.Context(), []plan.Action{action}).Err(); failure.KindOf(err) == "" || r.live("ConfigMap", "config") == nil {
		t.Fatalf("an object with another uid: %v; it must stay, and stay in the inventory", err)
	}
	action.UID = live.GetUID()
	for _, when := range []string{"is there", "is gone"} {
		if err := r.Prune(t.Context(), []plan.Action{action}).Err(); err != nil || r.live("ConfigMap", "config") != nil {
			t.Errorf("when it %s: %v", when, err)
		}
	}
	if err := r.Prune(t.Context(), []plan.Action{{Verb: plan.Delete, ID: object.ID{Group: "gone.example.com", Kind: "Gadget", Name: "x"}, Version: "v1", UID: "u"}}).Err(); err != nil {
		t.Errorf("an object that went with its kind: %v", err)
	}
}

// The ledger may be behind when a deletion is planned: what the object says of
// itself by then decides.
func TestPruneLooksAgain(t *testing.T) {
	for _, c := range []struct{ name, reason, metadata string }{
		{"kept", "somebody asked a moment ago to keep it", "annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}"},
		{"hands off", "somebody asked a moment ago to leave it", "annotations: {kustomize.toolkit.fluxcd.io/reconcile: disabled}"},
		{"owned", "another unit took it a moment ago", "labels: {kustomize.toolkit.fluxcd.io/name: other, kustomize.toolkit.fluxcd.io/namespace: x}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.must(`{apiVersion: v1, kind: ConfigMap, metadata: {name: config, namespace: NS, ` + c.metadata + `}}`)
			live := r.live("ConfigMap", "config")
			action := plan.Action{Verb: plan.Delete, ID: object.IDOf(live), Version: "v1", UID: live.GetUID()}
			err := r.Prune(t.Context(), []plan.Action{action}).Err()
			if failure.KindOf(err) != failure.Conflict || r.live("ConfigMap", "config") == nil {
				t.Errorf("%v: %s", err, c.reason)
			}
		})
	}
}

func TestPruneRunsBackwards(t *testing.T) {
	r := newRig(t)
	r.Slots = make(chan struct{}, 1)
	texts := []string{made, config, `{apiVersion: v1, kind: Service, metadata: {name: s, namespace: NS}, spec: {ports: [{port: 80}]}}`,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: NS}}`, `{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: NS-p}, value: 1}`}
	r.must(texts...)
	applied := r.journal
	var deletions []plan.Action
	for _, u := range r.parse(texts...) {
		live, err := r.Live(t.Context(), plan.Action{ID: object.IDOf(u), Version: "v1"})
		if err != nil {
			t.Fatal(err)
		}
		deletions = append(deletions, plan.Action{Verb: plan.Delete, ID: object.IDOf(u), Version: "v1", UID: live.GetUID()})
	}
	r.journal = nil
	if err := r.Prune(t.Context(), deletions).Err(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, line := range applied {
		if name, ok := strings.CutPrefix(line, "applied "); ok {
			want = append(want, "deleted "+name)
		}
	}
	slices.Reverse(want)
	if !slices.Equal(r.journal, want) {
		t.Errorf("deleted in the order %v, want %v", r.journal, want)
	}
}
