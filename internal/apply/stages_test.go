package apply

import (
	"slices"
	"testing"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// Kinds that are chosen are there before the rest begins, and go after it.
func TestChosenStage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Chosen = object.Kinds{{Group: "apps", Kind: "ReplicaSet"}: true}
	r.Slots = make(chan struct{}, 1) // one after the other, so that the order shows
	const set = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: first, namespace: NS}, spec: {replicas: 0, selector: {matchLabels: {a: b}}, " +
		"template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}"
	r.must("{apiVersion: v1, kind: ConfigMap, metadata: {name: rest, namespace: NS}}", set)
	if want := []string{"applying ReplicaSet/first", "applied ReplicaSet/first", "applying ConfigMap/rest", "applied ConfigMap/rest"}; !slices.Equal(r.journal, want) {
		t.Errorf("applied as %q, want %q", r.journal, want)
	}
	var order []string
	for _, stage := range r.stages([]plan.Action{{ID: object.ID{Kind: "ConfigMap", Name: "rest"}}, {ID: object.ID{Group: "apps", Kind: "ReplicaSet", Name: "first"}},
		{ID: object.ID{Kind: "Namespace", Name: "n"}}}) {
		order = append(order, stage[0].ID.Name)
	}
	if want := []string{"n", "first", "rest"}; !slices.Equal(order, want) {
		t.Errorf("stages of %q, want %q", order, want)
	}
}
