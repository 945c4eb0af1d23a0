package controller

import (
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/report"
)

// genuine reports whether the copy says what the hub assigned. The link notes the fingerprint of what it writes; a generation
// that was carried out already is what it was then, also where no link noted it, as older ones did, or where a newer API reads it
// differently.
func (r *assignmentRun) genuine() bool {
	r.mu.Lock()
	last, ok := r.made[client.ObjectKeyFromObject(r.a)]
	r.mu.Unlock()
	if ok && last.uid == r.a.UID && last.generation == r.a.Generation {
		return true
	}
	ready := report.Condition(r.a, meta.ReadyCondition)
	done := ready != nil && ready.Status == metav1.ConditionTrue && ready.ObservedGeneration == r.a.Generation
	return done || r.a.WasCopied()
}

// edited waits for the link, which puts the copy right as soon as it knows what the hub assigned. To carry out what somebody wrote there
// meanwhile would delete what is to stay.
func (r *assignmentRun) edited() time.Duration {
	const message = "Somebody changed the copy, which is not carried out; what ran before goes on until the hub's assignment is copied again. " +
		"To change what runs here, change it on the hub"
	if c := report.Condition(r.before, meta.ReadyCondition); c == nil || c.Reason != fleetv1.ReasonEdited {
		r.events.Event(r.a, corev1.EventTypeWarning, fleetv1.ReasonEdited, message)
	}
	r.a.Status.ObservedGeneration = r.a.Generation
	report.Progressing(r.a, fleetv1.ReasonEdited, message)
	return 0
}
