package controller

import (
	"context"
	"errors"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/report"
)

// reasonSourceNotReady is the toolkit's reason for a chart that is not there yet.
const reasonSourceNotReady = "SourceNotReady"

// releaseRetry is how long failures of other things than a release are apart at most.
const releaseRetry = time.Minute

// fail reports that the reconcile could not be carried out, and returns when to try
// again. What a release itself did wrong is told elsewhere.
func (r *helmReleaseRun) fail(reason string, err error) time.Duration {
	terminal, message := failure.Terminal(err), object.Conceal(err.Error(), r.secrets)
	r.attempts.failedFor(r.unit(), r.attempt, err)
	wait := r.attempt.failed(r.now, terminal, min(releaseRetry, max(r.h.Spec.Interval.Duration, shortestWait)))
	r.observed()
	report.Failed(r.h, reason, message, terminal)
	if !r.sameCondition(reason, message) {
		r.log.Error(errors.New(message), "failed", "reason", reason, "retryIn", wait.String())
		r.tell(corev1.EventTypeWarning, reason, message)
	}
	if r.attempts.helped(r.attempt) {
		return 0 // what was wanting may have come while this was under way
	}
	return wait
}

// failThere reports what failed on the cluster. Of one that does not answer it says
// just that, however many requests that ended.
func (r *helmReleaseRun) failThere(reason string, err error) time.Duration {
	return r.fail(reason, r.there(err))
}

// there returns what an error of a request to the cluster means.
func (r *helmReleaseRun) there(err error) error {
	if why := r.target.turnedAway(r.unit()); why != nil {
		return why
	}
	return r.tenancy.explain(addressOfRelease(r.h), err)
}

// wait reports that the HelmRelease waits for another object, whose event will
// bring it back. A wait that is passing is told only when it lasts.
func (r *helmReleaseRun) wait(reason, message string, passing bool) time.Duration {
	if r.attempt.blockedSince.IsZero() {
		r.attempt.blockedSince = r.now
	}
	if left := tellAfter - r.now.Sub(r.attempt.blockedSince); passing && left > 0 && !r.sameCondition(reason, message) {
		return left
	}
	r.observed()
	report.Waiting(r.h, reason, message)
	if !r.sameCondition(reason, message) {
		r.tell(corev1.EventTypeNormal, reason, message)
	}
	return max(r.h.Spec.Interval.Duration, shortestWait)
}

func (r *helmReleaseRun) sameCondition(reason, message string) bool {
	c := report.Condition(r.before, meta.ReadyCondition)
	return c != nil && c.Reason == reason && c.Message == message
}

// observed notes generation and reconcile request as handled.
func (r *helmReleaseRun) observed() {
	r.h.Status.ObservedGeneration = r.h.Generation
	r.requested()
}

// requested notes the reconcile request as handled, and with it those that count only
// together with it.
func (r *helmReleaseRun) requested() {
	asked, ok := r.h.Annotations[meta.ReconcileRequestAnnotation]
	if !ok {
		return
	}
	r.h.Status.LastHandledReconcileAt = asked
	if force, ok := r.h.Annotations[meta.ForceRequestAnnotation]; ok {
		r.h.Status.LastHandledForceAt = force
	}
	if reset, ok := r.h.Annotations[helmv2.ResetRequestAnnotation]; ok {
		r.h.Status.LastHandledResetAt = reset
	}
}

// asks reports whether an annotation asks for something together with a reconcile
// request that was not handled yet; handled is what was, of the annotation itself.
func (r *helmReleaseRun) asks(annotation, handled string) bool {
	asked := r.h.Annotations[meta.ReconcileRequestAnnotation]
	return asked != "" && asked != r.h.Status.LastHandledReconcileAt && r.h.Annotations[annotation] == asked && handled != asked
}

// tell writes an event once the status is written.
func (r *helmReleaseRun) tell(kind, reason, message string) {
	r.notices = append(r.notices, notice{kind, reason, object.Conceal(message, r.secrets)})
}

// write sends the status if it differs from what was last written, and the
// events that explain it. What is about to change anyhow is not written.
func (r *helmReleaseRun) write(ctx context.Context) error {
	if r.quiet && !r.concluded {
		return nil
	}
	if !equality.Semantic.DeepEqual(r.before.Status, r.h.Status) {
		desired := r.h.DeepCopy()
		if err := r.publish(ctx, r.h, r.before); err != nil {
			return err
		}
		r.h.Status = desired.Status
		r.written.note(r.h)
		r.before = r.h.DeepCopy()
	}
	r.announce()
	return nil
}

// announce writes the events.
func (r *helmReleaseRun) announce() {
	for _, n := range r.notices {
		r.events.AnnotatedEventf(r.h, r.eventMeta(), n.kind, n.reason, "%s", clip(n.message))
	}
	r.notices = nil
}

// eventMeta is what the toolkit's notifications read from an event.
func (r *helmReleaseRun) eventMeta() map[string]string {
	group := helmv2.GroupVersion.Group
	out := map[string]string{}
	add := func(key, value string) {
		if value != "" {
			out[group+"/"+key] = value
		}
	}
	add("revision", r.h.Status.LastAttemptedRevision)
	add("token", r.h.Status.LastAttemptedConfigDigest)
	add("oci-digest", r.h.Status.LastAttemptedRevisionDigest)
	if r.wanted != nil {
		add("app-version", r.wanted.chart.AppVersion())
	}
	return out
}
