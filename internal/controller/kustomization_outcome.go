package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// owner is the field manager of what the engine itself writes.
const owner = client.FieldOwner("bowline")

// fail reports a failed attempt and returns when to try again.
func (r *kustomizationRun) fail(reason string, err error) time.Duration {
	terminal, message := failure.Terminal(err), object.Conceal(err.Error(), r.secrets)
	lacking := err
	if reason == meta.BuildFailedReason {
		lacking = nil // what a build lacks comes by a commit
	}
	r.attempts.failedFor(client.ObjectKeyFromObject(r.k), r.attempt, lacking)
	wait := r.attempt.failed(r.now, terminal, r.k.GetRetryInterval())
	r.attempt.changed = true
	r.attempt.late = false // what failed now is no matter of waiting
	r.observed()
	report.Failed(r.k, reason, message, terminal)
	if !r.sameCondition(reason, message) {
		r.log.Error(errors.New(message), "failed", "reason", reason, "revision", r.k.Status.LastAttemptedRevision, "retryIn", wait.String())
		r.event = &notice{corev1.EventTypeWarning, reason, message}
	}
	if r.attempts.helped(r.attempt) {
		return 0 // what was wanting may have come while this was under way
	}
	return wait
}

// pending waits for what an event will make possible, such as a definition that is
// being established, until the timeout.
func (r *kustomizationRun) pending(artifact source.Artifact, err error) time.Duration {
	a, timeout := r.attempt, r.k.GetTimeout()
	if a.pendingSince.IsZero() {
		a.pendingSince = r.now
	}
	elapsed := r.now.Sub(a.pendingSince)
	if left := timeout - elapsed; left > 0 {
		// Of an object that is replaced and never carried our labels no event tells
		// that it is gone; looking again is due ever later, the longer it takes.
		return min(max(time.Second, elapsed), left, r.progress("Applying revision "+artifact.Revision+": "+err.Error()))
	}
	wait := r.fail(meta.ReconciliationFailedReason, &failure.Error{Op: "apply", Kind: failure.Timeout, Object: "revision " + artifact.Revision,
		Err: fmt.Errorf("still waiting after %s: %w", timeout, err), Remedy: "see what holds it up, or raise spec.timeout"})
	a.stuck = true // the event may come yet
	return wait
}

// wait reports that the Kustomization waits for another object, whose event will
// bring it back. A wait that is passing is told only when it lasts: each commit
// and each start of the engine makes everybody wait a moment.
func (r *kustomizationRun) wait(reason, message string, passing bool) time.Duration {
	if r.attempt.blockedSince.IsZero() {
		r.attempt.blockedSince = r.now
	}
	if left := tellAfter - r.now.Sub(r.attempt.blockedSince); passing && left > 0 && !r.sameCondition(reason, message) {
		return left
	}
	r.observed()
	report.Waiting(r.k, reason, message)
	if !r.sameCondition(reason, message) {
		r.event = &notice{corev1.EventTypeNormal, reason, message}
	}
	return max(r.k.GetRetryInterval(), shortestWait)
}

func (r *kustomizationRun) sameCondition(reason, message string) bool {
	c := report.Condition(r.before, meta.ReadyCondition)
	return c != nil && c.Reason == reason && c.Message == message
}

// progress reports work under way.
func (r *kustomizationRun) progress(message string) time.Duration {
	r.attempt.retry() // the event that is waited for must not find it barred
	r.k.Status.ObservedGeneration = r.k.Generation
	report.Progressing(r.k, meta.ProgressingReason, object.Conceal(message, r.secrets))
	return r.k.GetTimeout()
}

// succeed reports that the revision is live.
func (r *kustomizationRun) succeed(artifact source.Artifact, wants []plan.Want) time.Duration {
	asked := r.observed()
	message := "Applied revision: " + artifact.Revision
	moved := r.before.Status.LastAppliedRevision != artifact.Revision
	r.k.Status.LastAppliedRevision = artifact.Revision
	r.k.Status.LastAppliedOriginRevision = artifact.OriginRevision()
	report.Ready(r.k, meta.ReconciliationSucceededReason, message)
	if moved || asked || r.attempt.changed {
		report.History(r.k, wantsDigest(wants), r.now, r.clock.Since(r.attempt.began), meta.ReconciliationSucceededReason, artifact.Revision)
	}
	if r.attempt.changed {
		if changes := strings.Join(r.attempt.changes, ", "); changes != "" {
			message += ": " + changes
		}
		r.event = &notice{corev1.EventTypeNormal, meta.ReconciliationSucceededReason, message}
	}
	r.attempts.succeeded(client.ObjectKeyFromObject(r.k), r.attempt)
	return max(r.k.Spec.Interval.Duration, shortestWait)
}

// observed notes generation and reconcile request as handled, and reports
// whether there was a request.
func (r *kustomizationRun) observed() bool {
	r.k.Status.ObservedGeneration = r.k.Generation
	asked, ok := r.k.Annotations[meta.ReconcileRequestAnnotation]
	if !ok || asked == r.k.Status.LastHandledReconcileAt {
		return false
	}
	r.k.Status.LastHandledReconcileAt = asked
	return true
}

// contestedIn returns the objects of a plan whose healing has to wait, and who changes them.
func contestedIn(p *plan.Plan) (who, why string) {
	var names, words []string
	for _, a := range p.Actions {
		if a.Verb == plan.Keep && a.Reason != "" {
			names, words = append(names, a.ID.String()), append(words, fmt.Sprintf("%s: %s", a.ID, a.Reason))
		}
	}
	return report.Names(names), report.Names(words)
}

// tellMoved returns what tells that a unit is delivered to another cluster from now on.
func tellMoved(events record.EventRecorder) func(address) {
	return func(a address) {
		ids := a.inventory()
		if len(ids) == 0 {
			return
		}
		names := make([]string, 0, len(ids))
		for _, id := range ids {
			names = append(names, id.String())
		}
		events.Event(a.object, corev1.EventTypeWarning, report.ReasonTargetChanged,
			clip("It is delivered to another cluster now; what it delivered before stays where it was: "+report.Names(names)))
	}
}

// write sends the status if it differs from what was last written, and the
// event that explains it.
func (r *kustomizationRun) write(ctx context.Context) error {
	if !equality.Semantic.DeepEqual(r.before.Status, r.k.Status) {
		desired := r.k.DeepCopy()
		if err := r.publish(ctx, r.k, r.before); err != nil {
			return err
		}
		r.k.Status = desired.Status
		r.written.note(r.k)
		r.before = r.k.DeepCopy()
	}
	if r.event != nil {
		annotations := map[string]string{kustomizev1.GroupVersion.Group + "/revision": r.k.Status.LastAttemptedRevision}
		r.events.AnnotatedEventf(r.k, annotations, r.event.kind, r.event.reason, "%s", clip(r.event.message))
		r.event = nil
	}
	return nil
}

// maxEvent is the length that the API server accepts in an event's message.
const maxEvent = 1024

func clip(s string) string {
	if len(s) <= maxEvent {
		return s
	}
	return strings.ToValidUTF8(s[:maxEvent-3], "") + "..."
}
