package controller

import (
	"errors"
	"fmt"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
)

// succeed reports that all artifacts are up to date.
func (r *generatorRun) succeed() time.Duration {
	var news []string
	for _, ref := range r.g.Status.Inventory {
		if !r.before.HasArtifactInInventory(ref.Name, ref.Namespace, ref.Digest) {
			news = append(news, fmt.Sprintf("%s/%s (%s)", ref.Namespace, ref.Name, ref.Digest))
		}
	}
	if len(news) > 0 {
		r.events.Event(r.g, corev1.EventTypeNormal, meta.SucceededReason, clip("external artifacts reconciled: "+report.Names(news)))
	}
	r.observed()
	r.attempts.forget(r.name)
	report.Ready(r.g, meta.SucceededReason, fmt.Sprintf("reconciliation succeeded, generated %d artifact(s)", len(r.g.Status.Inventory)))
	return 0
}

// observed notes a reconcile request as handled.
func (r *generatorRun) observed() {
	if asked, ok := r.g.Annotations[meta.ReconcileRequestAnnotation]; ok {
		r.g.SetLastHandledReconcileAt(asked)
	}
}

// fail reports a failure and returns when to try again: never, when only a change of
// what the generator is made of can help, which wakes it.
func (r *generatorRun) fail(reason string, err error) time.Duration {
	r.observed()
	terminal := failure.Terminal(err)
	r.tell(reason, err.Error())
	report.Failed(r.g, reason, err.Error(), terminal)
	if terminal || reason == meta.BuildFailedReason {
		return 0
	}
	return r.attempts.of(r.name).failed(r.now, false, longestRetry)
}

// longestRetry is the longest time between two attempts to write what a generator made.
const longestRetry = time.Minute

// waitForSources reports that a source has no artifact, which will wake the generator
// when it has. A wait that is passing is told only when it lasts.
func (r *generatorRun) waitForSources(err error) time.Duration {
	a := r.attempts.of(r.name)
	if a.blockedSince.IsZero() {
		a.blockedSince = r.now
	}
	var missing *missingError
	passing := errors.As(err, &missing) && missing.passing
	if left := tellAfter - r.now.Sub(a.blockedSince); passing && left > 0 {
		return left
	}
	r.observed()
	r.tell(swapi.SourceFetchFailedReason, err.Error())
	report.Waiting(r.g, swapi.SourceFetchFailedReason, err.Error())
	return 0
}

// tell writes an event when the message is another one than before.
func (r *generatorRun) tell(reason, message string) {
	if c := report.Condition(r.before, meta.ReadyCondition); c == nil || c.Reason != reason || c.Message != message {
		r.events.Event(r.g, corev1.EventTypeWarning, reason, clip(message))
	}
}
