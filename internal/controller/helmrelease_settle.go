package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// settle is what is done when the release is as wanted: objects that are not as the
// release has them are healed or told of, as the HelmRelease says.
func (r *helmReleaseRun) settle(ctx context.Context) time.Duration {
	r.restore()
	r.h.Status.ObservedGeneration = r.h.Generation
	r.requested()
	switch r.h.GetDriftDetection().GetMode() {
	case helmv2.DriftDetectionEnabled:
		if again, ok := r.heal(ctx); !ok {
			return again
		}
		report.Mark(r.h, helmv2.DriftedCondition, metav1.ConditionFalse, helmv2.NoDriftDetectedReason, "No drift detected against the cluster state")
	case helmv2.DriftDetectionWarn:
		if again, ok := r.warn(ctx); !ok {
			return again
		}
	default:
		report.Unmark(r.h, helmv2.DriftedCondition)
	}
	r.summarize()
	r.attempts.succeeded(r.unit(), r.attempt)
	return max(r.h.Spec.Interval.Duration, shortestWait)
}

// restore sets what a failure that is over had put into the conditions: the release is
// as wanted, whoever made it so.
func (r *helmReleaseRun) restore() {
	cur := r.h.Status.History.Latest()
	if cur == nil {
		return
	}
	released := report.Condition(r.h, helmv2.ReleasedCondition)
	if report.Condition(r.h, helmv2.RemediatedCondition) == nil && released != nil && released.Status == metav1.ConditionTrue {
		return
	}
	report.Unmark(r.h, helmv2.RemediatedCondition)
	reason, said := helmv2.UpgradeSucceededReason, saidUpgraded
	if cur.Action == helmv2.ReleaseActionInstall || cur.Version == 1 {
		reason, said = helmv2.InstallSucceededReason, saidInstalled
	}
	report.Mark(r.h, helmv2.ReleasedCondition, metav1.ConditionTrue, reason, fmt.Sprintf(said, cur.FullReleaseName(), cur.VersionedChartName()))
}

// standing is what the pipeline delivers while nothing new is released: what the
// storage says is deployed, which is read only when something has to be sent.
// Definitions of which it is not known whether they are from the manifest are no part of it:
// nothing is pruned here.
func (r *helmReleaseRun) standing() (pipeline.Unit, error) {
	m := r.memory
	var have []plan.Entry
	for _, e := range releaseEntries(r.h) {
		if e.ID.Kind != definitionKind {
			have = append(have, e)
		}
	}
	return r.unitOf(m.last.Version, m.last.Manifest, have, func(ctx context.Context) (*release.Release, error) {
		record, err := m.store.Get(ctx, m.key.Name, m.last.Version)
		if err != nil {
			return nil, err
		}
		return record.Release, nil
	})
}

// heal applies what somebody else changed or removed. ok says that all is as it should be.
func (r *helmReleaseRun) heal(ctx context.Context) (again time.Duration, ok bool) {
	unit, err := r.standing()
	if err != nil {
		return r.fail(meta.ReconciliationFailedReason, err), false
	}
	out, err := r.send(ctx, unit, r.h.GetTimeout().Duration)
	r.keep(out, slices.DeleteFunc(releaseEntries(r.h), func(e plan.Entry) bool { return e.ID.Kind != definitionKind }))
	if words := r.attempt.contest(out.Plan, r.now); words != "" {
		r.tell(corev1.EventTypeWarning, report.ReasonDriftContested, words)
	}
	if changes := report.Changes(out.Changes); changes != "" {
		r.tell(corev1.EventTypeNormal, "DriftCorrected", fmt.Sprintf("Cluster state of release %s has been corrected: %s", r.h.Status.History.Latest().FullReleaseName(), changes))
	}
	if err != nil {
		return r.failThere("DriftCorrectionFailed", err), false
	}
	return 0, true
}

// warn tells of objects that are not as the release has them, and leaves them.
func (r *helmReleaseRun) warn(ctx context.Context) (again time.Duration, ok bool) {
	unit, err := r.standing()
	if err != nil {
		return r.fail(meta.ReconciliationFailedReason, err), false
	}
	timed, cancel := context.WithTimeout(ctx, r.h.GetTimeout().Duration)
	defer cancel()
	found, err := r.pipeline.Look(timed, unit, r.target.scoped(timed, unit.Name), source.Artifact{Digest: unit.Made.Digest})
	if err != nil {
		return r.failThere(reasonStateError, unit.Conceal(err)), false
	}
	var names []string
	for _, a := range found.Actions {
		switch a.Verb {
		case plan.Create:
			names = append(names, a.ID.String()+" removed")
		case plan.Heal, plan.Update:
			names = append(names, a.ID.String()+" changed")
		default:
		}
	}
	if len(names) == 0 {
		report.Mark(r.h, helmv2.DriftedCondition, metav1.ConditionFalse, helmv2.NoDriftDetectedReason, "No drift detected against the cluster state")
		return 0, true
	}
	message := fmt.Sprintf("Cluster state of release %s has drifted from the desired state: %s", r.h.Status.History.Latest().FullReleaseName(), report.Names(names))
	if c := report.Condition(r.before, helmv2.DriftedCondition); c == nil || c.Message != message {
		r.tell(corev1.EventTypeWarning, helmv2.DriftDetectedReason, message)
	}
	report.Mark(r.h, helmv2.DriftedCondition, metav1.ConditionTrue, helmv2.DriftDetectedReason, message)
	return 0, true
}

// adopt takes a revision as it is, which somebody else made: its objects get our labels,
// and the status notes it.
func (r *helmReleaseRun) adopt(ctx context.Context) stepped {
	if again, ok := r.heal(ctx); !ok {
		return comeBack(again)
	}
	record, err := r.memory.store.Get(ctx, r.memory.key.Name, r.memory.last.Version)
	if err != nil {
		return comeBack(r.failThere(reasonStateError, err))
	}
	r.note(record)
	s := &r.h.Status
	s.ObservedPostRenderersDigest, s.ObservedCommonMetadataDigest = r.wanted.renderers, r.wanted.metadata
	r.memory.known = false
	return goOn()
}
