package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// explainer says why an object is not ready, in one line; "" when it is not known.
type explainer func(ctx context.Context, id object.ID, version string) string

// tellAfter is how long a wait for health lasts before the status tells of it:
// most are over sooner, and would cost a write each.
const tellAfter = 2 * time.Second

// maxExplained is how many unhealthy objects a message explains.
const maxExplained = 3

// assess looks at the health of what the Kustomization waits for. Nothing is
// waited for here: the ledger's next event brings the unit back.
func (r *kustomizationRun) assess(ctx context.Context, unit pipeline.Unit, artifact source.Artifact, out pipeline.Outcome) time.Duration {
	ids, refs, err := healthOf(ctx, r.target.Cluster.Resources, r.k, out.Wants)
	if err == nil && r.attempt.mayRead != r.attempt.inputs {
		if err = r.target.mayRead(ctx, out.Wants, refs); err == nil {
			r.attempt.mayRead = r.attempt.inputs
		}
	}
	if err == nil {
		err = r.target.ledger.Follow(ctx, unit.Name, refs)
	}
	if err != nil {
		return r.failThere(meta.HealthCheckFailedReason, err)
	}
	if len(ids) == 0 {
		report.NoHealth(r.k)
		return r.succeed(artifact, out.Wants)
	}
	h := r.target.ledger.Health(unit.Name, ids)
	if h.Ready() {
		report.Healthy(r.k, metav1.ConditionTrue, meta.SucceededReason, "Health check passed")
		return r.succeed(artifact, out.Wants)
	}
	return r.unready(ctx, h, versionsOf(out.Wants, refs))
}

// unready goes on waiting, or reports that the wait is over.
func (r *kustomizationRun) unready(ctx context.Context, h observe.Health, versions map[object.ID]string) time.Duration {
	a := r.attempt
	if a.late {
		if left := a.retryAt.Sub(r.now); left > 0 {
			return left
		}
		a.late, a.waitingSince = false, time.Time{}
	}
	if a.waitingSince.IsZero() {
		a.waitingSince = r.now
	}
	waited := r.now.Sub(a.waitingSince)
	left := r.k.GetTimeout() - waited
	if len(h.Failed) > 0 || left <= 0 {
		a.late, a.failedBefore = true, true
		message := fmt.Sprintf("health check failed after %s: %s", waited.Round(time.Second), r.explainAll(ctx, h, versions))
		return r.unhealthy(message)
	}
	if !a.failedBefore {
		left = min(left, r.tellWaiting(ctx, waited, h, versions))
	}
	return left
}

// tellWaiting says in the status what is waited for, and returns when to look whether
// that is still so: ever later, so that a rollout of a thousand objects is not a thousand
// writes, and also without an event, since causes such as those of pods have none.
func (r *kustomizationRun) tellWaiting(ctx context.Context, waited time.Duration, h observe.Health, versions map[object.ID]string) time.Duration {
	a := r.attempt
	if a.tellAt = max(a.tellAt, tellAfter); waited < a.tellAt {
		return a.tellAt - waited
	}
	message := "Waiting for health: " + r.explainAll(ctx, h, versions)
	report.Healthy(r.k, metav1.ConditionUnknown, meta.ProgressingReason, message)
	r.progress(message)
	again := max(tellAfter, waited/2)
	a.tellAt = waited + again
	return again
}

func (r *kustomizationRun) unhealthy(message string) time.Duration {
	wait := r.attempt.failed(r.now, true, r.k.GetRetryInterval())
	r.attempt.changed = true
	r.observed()
	report.Healthy(r.k, metav1.ConditionFalse, meta.HealthCheckFailedReason, message)
	report.Failed(r.k, meta.HealthCheckFailedReason, message, false)
	r.event = &notice{corev1.EventTypeWarning, meta.HealthCheckFailedReason, message}
	return wait
}

// explainAll says of each unhealthy object what it is and why.
func (r *kustomizationRun) explainAll(ctx context.Context, h observe.Health, versions map[object.ID]string) string {
	return object.Conceal(r.target.explainAll(ctx, h, versions), r.secrets)
}

// explainAll says of each unhealthy object what it is and why.
func (d *delivery) explainAll(ctx context.Context, h observe.Health, versions map[object.ID]string) string {
	var words []string
	for i, item := range append(h.Failed, h.Waiting...) {
		why := item.Verdict.Message
		if i < maxExplained {
			if cause := d.explain(ctx, item.ID, versions[item.ID]); cause != "" {
				why = cause
			}
		}
		words = append(words, fmt.Sprintf("%s is %s: %s", item.ID, item.Verdict.Status, why))
	}
	return report.Names(words)
}

func versionsOf(wants []plan.Want, refs []observe.Reference) map[object.ID]string {
	versions := make(map[object.ID]string, len(wants)+len(refs))
	for _, w := range wants {
		versions[w.ID] = w.Version
	}
	for _, ref := range refs {
		versions[ref.ID] = ref.Version
	}
	return versions
}
