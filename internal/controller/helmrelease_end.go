package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"helm.sh/helm/v4/pkg/release/common"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
)

// Words of the toolkit.
const (
	saidInstalled  = "Helm install succeeded for release %s with chart %s"
	saidUpgraded   = "Helm upgrade succeeded for release %s with chart %s"
	saidRolledBack = "Helm rollback to previous release %s with chart %s succeeded"
)

// end records how the revision under way ended.
func (r *helmReleaseRun) end(ctx context.Context, cause error) stepped {
	m := r.memory
	record := m.record
	took := r.clock.Now().Sub(m.began)
	if cause != nil {
		if err := r.cleanUp(ctx, record); err != nil {
			cause = fmt.Errorf("%w; and what was new could not be removed: %w", cause, err)
		}
		record.SetStatus(common.StatusFailed, r.failedWords(record, cause))
	} else {
		superseded, err := m.store.Supersede(ctx, record.Name, record.Version)
		if err != nil {
			return comeBack(r.failThere(reasonStateError, err))
		}
		r.note(superseded...)
		record.SetStatus(common.StatusDeployed, deployedWords(record))
	}
	if err := m.store.Update(ctx, record); err != nil {
		return comeBack(r.failThere(reasonStateError, err))
	}
	r.note(record)
	r.h.Status.LastAttemptedReleaseActionDuration = &metav1.Duration{Duration: took.Round(time.Millisecond)}
	if cause != nil {
		r.failedRelease(record, cause)
		m.released = ""
	} else {
		m.released = r.wanted.digest
		if record.Marks.Action == helmv2.ReleaseActionRollback {
			m.released = ""
		}
		r.released(record)
	}
	m.ended, m.waitingSince, m.known = r.clock.Now(), time.Time{}, false
	if record.Marks.Action == helmv2.ReleaseActionRollback {
		return r.remediated(cause != nil)
	}
	return goOn()
}

// cleanUp removes what is new in a revision that failed, where that is asked for.
func (r *helmReleaseRun) cleanUp(ctx context.Context, record *release.Record) error {
	action := record.Marks.Action
	if !(action == helmv2.ReleaseActionUpgrade && r.h.GetUpgrade().CleanupOnFail || action == helmv2.ReleaseActionRollback && r.h.GetRollback().CleanupOnFail) {
		return nil
	}
	before, err := r.deployed(ctx)
	if err != nil || before == nil {
		return err
	}
	had, err := r.entriesIn(ctx, before)
	if err != nil {
		return err
	}
	added, err := r.entriesIn(ctx, record.Release)
	if err != nil {
		return err
	}
	added = slices.DeleteFunc(added, func(e plan.Entry) bool {
		return slices.ContainsFunc(had, func(other plan.Entry) bool { return other.ID == e.ID })
	})
	if added, err = r.removeNew(ctx, record, added); err != nil {
		return err
	}
	left := slices.DeleteFunc(releaseEntries(r.h), func(e plan.Entry) bool {
		return slices.ContainsFunc(added, func(other plan.Entry) bool { return other.ID == e.ID })
	})
	r.h.Status.Inventory = releaseInventory(left)
	return nil
}

// removeNew deletes those of the entries that the revision made, and returns them. What was there
// before and only was taken over stays: the server's own times tell.
func (r *helmReleaseRun) removeNew(ctx context.Context, record *release.Record, added []plan.Entry) ([]plan.Entry, error) {
	since, err := r.memory.store.CreatedAt(ctx, record)
	if err != nil {
		return nil, err
	}
	var gone []plan.Entry
	var deletions []plan.Action
	for _, e := range added {
		a := plan.Removal(r.unit(), e, r.target.Ledger)
		if a.Verb != plan.Delete {
			continue
		}
		before, err := r.live().MadeBefore(ctx, observe.Reference{ID: e.ID, Version: e.Version}, since)
		if err != nil {
			return nil, err
		}
		if !before {
			gone, deletions = append(gone, e), append(deletions, a)
		}
	}
	r.target.Ledger.Want(r.unit(), slices.DeleteFunc(slices.Clone(r.memory.outcome.Wants), func(w plan.Want) bool {
		return slices.ContainsFunc(gone, func(e plan.Entry) bool { return e.ID == w.ID })
	}))
	return gone, r.target.scoped(ctx, r.unit()).Applier.Prune(ctx, deletions).Err()
}

// note brings revisions into the history of the status.
func (r *helmReleaseRun) note(records ...*release.Record) {
	for _, record := range records {
		oci, action := r.h.Status.LastAttemptedRevisionDigest, record.Marks.Action
		for _, s := range r.h.Status.History {
			if s.Targets(record.Name, record.Namespace, record.Version) {
				oci, action = s.OCIDigest, cmp.Or(action, s.Action)
			}
		}
		snapshot, err := release.Snapshot(record.Release, oci, action)
		if err != nil {
			r.log.Error(err, "a revision is left out of the history", "revision", record.Version)
			continue
		}
		if record == r.memory.record && action == helmv2.ReleaseActionUpgrade && r.h.GetUpgrade().PreserveValues {
			snapshot.ConfigDigest = r.wanted.config // of what was asked for: the record holds more
		}
		r.h.Status.History = release.Note(r.h.Status.History, snapshot)
	}
}

func deployedWords(record *release.Record) string {
	switch record.Marks.Action {
	case helmv2.ReleaseActionInstall:
		return "Install complete"
	case helmv2.ReleaseActionRollback:
		return fmt.Sprintf("Rollback to %d", record.Info.RollbackRevision)
	default:
		return "Upgrade complete"
	}
}

func (r *helmReleaseRun) failedWords(record *release.Record, cause error) string {
	what := map[helmv2.ReleaseAction]string{helmv2.ReleaseActionInstall: "Release", helmv2.ReleaseActionRollback: "Rollback"}
	return fmt.Sprintf("%s %q failed: %s", cmp.Or(what[record.Marks.Action], "Upgrade"), record.Name, object.Conceal(cause.Error(), r.secrets))
}

// released tells that the revision is deployed.
func (r *helmReleaseRun) released(record *release.Record) {
	s := &r.h.Status
	cur := s.History.Latest()
	switch record.Marks.Action {
	case helmv2.ReleaseActionInstall:
		r.conclude(helmv2.ReleasedCondition, metav1.ConditionTrue, helmv2.InstallSucceededReason, fmt.Sprintf(saidInstalled, cur.FullReleaseName(), cur.VersionedChartName()))
	case helmv2.ReleaseActionRollback:
		r.conclude(helmv2.RemediatedCondition, metav1.ConditionTrue, helmv2.RollbackSucceededReason, fmt.Sprintf(saidRolledBack, rollbackName(record), cur.VersionedChartName()))
		return
	default:
		r.conclude(helmv2.ReleasedCondition, metav1.ConditionTrue, helmv2.UpgradeSucceededReason, fmt.Sprintf(saidUpgraded, cur.FullReleaseName(), cur.VersionedChartName()))
	}
	s.ObservedPostRenderersDigest, s.ObservedCommonMetadataDigest = r.wanted.renderers, r.wanted.metadata
	if r.h.GetActiveRetry(false) != nil {
		s.ClearFailures()
	}
	if r.h.GetTest().Enable && !cur.HasBeenTested() {
		report.Mark(r.h, helmv2.TestSuccessCondition, metav1.ConditionUnknown, "AwaitingTests",
			fmt.Sprintf("Helm release %s with chart %s is awaiting tests", cur.FullReleaseName(), cur.VersionedChartName()))
	}
}

// rollbackName names the revision that one goes back to.
func rollbackName(record *release.Record) string {
	return fmt.Sprintf("%s/%s.v%d", record.Namespace, record.Name, record.Info.RollbackRevision)
}

// failedRelease tells that the revision failed, and counts it.
func (r *helmReleaseRun) failedRelease(record *release.Record, cause error) {
	s := &r.h.Status
	s.Failures++
	switch record.Marks.Action {
	case helmv2.ReleaseActionInstall:
		s.InstallFailures++
	case helmv2.ReleaseActionUpgrade:
		s.UpgradeFailures++
	default:
		r.conclude(helmv2.RemediatedCondition, metav1.ConditionFalse, helmv2.RollbackFailedReason,
			fmt.Sprintf("Helm rollback to previous release %s with chart %s@%s failed: %s", rollbackName(record), record.Chart.Name(), record.Chart.Metadata.Version, cause))
		return
	}
	r.notDone(record.Marks.Action, cause)
}

// notDone tells that an install or upgrade failed.
func (r *helmReleaseRun) notDone(action helmv2.ReleaseAction, cause error) {
	reason := helmv2.UpgradeFailedReason
	if action == helmv2.ReleaseActionInstall {
		reason = helmv2.InstallFailedReason
	}
	r.conclude(helmv2.ReleasedCondition, metav1.ConditionFalse, reason, fmt.Sprintf("Helm %s failed for release %s/%s with chart %s@%s: %s",
		action, r.h.GetReleaseNamespace(), r.memory.key.Name, r.wanted.chart.Name(), r.wanted.chart.Version(), cause))
}

// notReleased tells that a release could not even be begun: nothing was sent, and the
// one of before runs on.
func (r *helmReleaseRun) notReleased(cause error) time.Duration {
	if transient(cause) {
		return r.failThere(meta.ReconciliationFailedReason, cause)
	}
	action := r.h.Status.LastAttemptedReleaseAction
	if r.memory.last == nil || action == "" {
		action = helmv2.ReleaseActionInstall
	}
	before := report.Condition(r.before, helmv2.ReleasedCondition)
	notices := r.notices
	r.notDone(action, cause)
	c := report.Condition(r.h, helmv2.ReleasedCondition)
	told := before != nil && before.Reason == c.Reason && before.Message == c.Message
	r.h.Status.Failures++
	wait := r.fail(c.Reason, cause)
	if r.notices = r.notices[:len(notices)+1]; told {
		r.notices = notices
	}
	report.Mark(r.h, meta.ReadyCondition, metav1.ConditionFalse, c.Reason, c.Message)
	return wait
}

// conclude sets a condition that says how an action ended, and tells it.
func (r *helmReleaseRun) conclude(condition string, status metav1.ConditionStatus, reason, message string) {
	message = object.Conceal(message, r.secrets)
	report.Mark(r.h, condition, status, reason, message)
	r.concluded = true
	kind := corev1.EventTypeNormal
	if status == metav1.ConditionFalse {
		kind = corev1.EventTypeWarning
		r.log.Info("failed", "reason", reason, "message", message)
	} else {
		r.log.Info("done", "reason", reason, "message", message)
	}
	r.tell(kind, reason, message)
}

// summarize makes Ready of the conditions that say how actions ended.
func (r *helmReleaseRun) summarize() {
	test := r.h.GetTest()
	if !test.Enable {
		report.Unmark(r.h, helmv2.TestSuccessCondition)
	}
	pick := report.Condition(r.h, helmv2.RemediatedCondition)
	status := metav1.ConditionFalse // what was remediated is not what is wanted
	if pick == nil {
		tested := report.Condition(r.h, helmv2.TestSuccessCondition)
		pick = report.Condition(r.h, helmv2.ReleasedCondition)
		if tested != nil && !test.IgnoreFailures && (pick == nil || pick.Status == metav1.ConditionTrue) {
			pick = tested
		}
		if pick == nil {
			return
		}
		status = pick.Status
	}
	if status == metav1.ConditionTrue {
		report.Ready(r.h, pick.Reason, pick.Message)
		return
	}
	report.Mark(r.h, meta.ReadyCondition, status, pick.Reason, pick.Message)
}
