package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
)

// rollback makes the next revision of the content of an earlier one.
func (r *helmReleaseRun) rollback(ctx context.Context, target int) stepped {
	m := r.memory
	old, err := m.store.Get(ctx, m.key.Name, target)
	if err != nil {
		return comeBack(r.failThere(helmv2.RollbackFailedReason, err))
	}
	rel := *old.Release
	record := release.Fresh(&rel, release.Marks{Unit: r.unit().String(), Inputs: old.Marks.Inputs, Action: helmv2.ReleaseActionRollback}, m.seen, r.now)
	return r.start(ctx, record)
}

// remediated says what comes after a remediation: the next attempt, if there is one, after
// a while that grows with each. One that failed is itself attempted again.
func (r *helmReleaseRun) remediated(failed bool) stepped {
	remediation := r.h.GetActiveRemediation()
	if !failed && remediation != nil && remediation.RetriesExhausted(r.h) && !(remediation.IsUninstallAfterUpgrade() && r.h.Status.InstallFailures == 0) {
		return goOn() // which tells so
	}
	r.observed()
	r.summarize()
	c := report.Condition(r.h, meta.ReadyCondition)
	report.Mark(r.h, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, c.Message)
	r.attempt.failures = int(min(max(r.h.Status.Failures-1, 0), 16))
	return comeBack(r.attempt.failed(r.now, false, releaseRetry))
}

// removal is an uninstalling under way.
type removal struct {
	*release.Removal
	action helmv2.ReleaseAction
	began  time.Time
}

// uninstall removes the release that a snapshot is of, from the storage in this namespace.
func (r *helmReleaseRun) uninstall(ctx context.Context, action helmv2.ReleaseAction, old *helmv2.Snapshot, storage string) stepped {
	done, err := r.removing(ctx, action, old, storage)
	m := r.memory
	if err != nil && transient(err) {
		return comeBack(r.failThere(helmv2.UninstallFailedReason, err))
	}
	if err != nil {
		m.removal, m.restart, m.known = nil, true, false
		return comeBack(r.notUninstalled(action, old, err))
	}
	if !done.more {
		return done
	}
	m.removal, m.restart, m.known, m.record = nil, false, false, nil
	r.h.Status.Inventory = nil
	if action == helmv2.ReleaseActionUninstallRemediation {
		r.conclude(helmv2.RemediatedCondition, metav1.ConditionTrue, helmv2.UninstallSucceededReason,
			fmt.Sprintf("Helm uninstall remediation for release %s with chart %s succeeded", old.FullReleaseName(), old.VersionedChartName()))
		return r.remediated(false)
	}
	r.conclude(helmv2.ReleasedCondition, metav1.ConditionFalse, helmv2.UninstallSucceededReason,
		fmt.Sprintf("Helm uninstall succeeded for release %s with chart %s", old.FullReleaseName(), old.VersionedChartName()))
	r.h.Status.ClearHistory()
	r.h.Status.ClearFailures()
	r.h.Status.StorageNamespace = ""
	return goOn()
}

// removing does what can be done now.
func (r *helmReleaseRun) removing(ctx context.Context, action helmv2.ReleaseAction, old *helmv2.Snapshot, storage string) (stepped, error) {
	m := r.memory
	if m.removal == nil || m.removal.action != action {
		store := m.store
		if storage != store.Namespace() {
			var err error
			if store, err = release.NewStore(r.target.Cluster, storage, m.storage.watch); err != nil {
				return stepped{}, err
			}
		}
		record, err := store.Last(ctx, old.Name)
		if isAbsent(err) {
			return goOn(), nil // somebody else uninstalled it
		}
		if err != nil {
			return stepped{}, err
		}
		if err := r.rival(ctx, record.Marks, record.Info.Status, old.Name); errors.Is(err, errRival) {
			r.tell(corev1.EventTypeWarning, helmv2.UninstallFailedReason, "What was released stays: "+err.Error())
			return goOn(), nil
		} else if err != nil {
			return stepped{}, err
		}
		// From now on nobody wants these objects: that they go is no drift.
		r.pipeline.Forget(r.unit())
		r.target.ledger.Want(r.unit(), nil)
		m.removal = &removal{action: action, began: r.now, Removal: &release.Removal{
			Hooks: r.hooks(store), Store: store, Record: record, Spec: r.h.GetUninstall(),
			Timeout: r.timeoutOf(action), Action: action, Besides: r.besides(), Restart: m.restart,
			MadeFirst: action == helmv2.ReleaseActionUninstallRemediation && r.h.Status.LastAttemptedReleaseAction == helmv2.ReleaseActionInstall,
		}}
	}
	p, err := m.removal.Advance(ctx)
	if err == nil && p.Done {
		r.references.wrote(idsOf(releaseEntries(r.h)))
		r.note(m.removal.Record)
	}
	return r.removed(p, err)
}

// besides returns what the inventory says is delivered, whatever revision it is of.
// What would need approval to be pruned is left out: uninstalling is a consent to what the release
// has now. Definitions are among it, which charts' own folders may have brought.
func (r *helmReleaseRun) besides() []observe.Reference {
	var refs []observe.Reference
	for _, e := range releaseEntries(r.h) {
		if !plan.Guarded(e.ID.GroupKind()) {
			refs = append(refs, observe.Reference{ID: e.ID, Version: e.Version})
		}
	}
	return refs
}

// removed turns how far an uninstalling came into what is to be done.
func (r *helmReleaseRun) removed(p release.Progress, err error) (stepped, error) {
	if err != nil || p.Failed != nil || p.Done {
		if err == nil {
			err = p.Failed
		}
		return stepped{more: p.Done}, err
	}
	elapsed, left := r.now.Sub(r.memory.removal.began), untilThen(p.Until, r.now)
	if elapsed < tellAfter {
		r.quiet = true
		return comeBack(min(left, tellAfter-elapsed)), nil
	}
	report.Mark(r.h, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingReason, "Running 'uninstall' action: "+p.Waits)
	return comeBack(left), nil
}

// notUninstalled tells that an uninstalling failed, and returns when to try again.
func (r *helmReleaseRun) notUninstalled(action helmv2.ReleaseAction, old *helmv2.Snapshot, cause error) time.Duration {
	condition, what := helmv2.ReleasedCondition, "Helm uninstall"
	if action == helmv2.ReleaseActionUninstallRemediation {
		condition, what = helmv2.RemediatedCondition, "Helm uninstall remediation for"
	}
	r.h.Status.Failures++
	r.conclude(condition, metav1.ConditionFalse, helmv2.UninstallFailedReason,
		fmt.Sprintf("%s failed for release %s with chart %s: %s", what, old.FullReleaseName(), old.VersionedChartName(), cause))
	r.observed()
	r.summarize()
	c := report.Condition(r.h, meta.ReadyCondition)
	report.Mark(r.h, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, c.Message)
	return r.attempt.failed(r.now, false, releaseRetry)
}

// test runs the tests of the newest revision.
func (r *helmReleaseRun) test(ctx context.Context) stepped {
	m := r.memory
	if m.record == nil {
		var err error
		if m.record, err = m.store.Get(ctx, m.key.Name, m.last.Version); err != nil {
			return comeBack(r.failThere(reasonStateError, err))
		}
		m.began = r.now
	}
	test := r.h.GetTest()
	p, err := r.hooks(m.store).Advance(ctx, release.HookRun{
		Record: m.record, Event: helmrelease.HookTest, Timeout: test.GetTimeout(r.h.GetTimeout()).Duration,
		Only: func(name string) bool { return release.TestSelected(name, test.GetFilters()) },
	})
	done, failed := r.progressed(p, err)
	switch {
	case err != nil:
		return comeBack(r.failThere(helmv2.TestFailedReason, err))
	case failed == nil && !done.more:
		return done
	}
	r.tested(m.record, failed)
	m.record, m.known, m.ended = nil, false, r.clock.Now()
	return goOn()
}

// tested tells how the tests of a revision ended.
func (r *helmReleaseRun) tested(record *release.Record, failed error) {
	r.note(record)
	cur := r.h.Status.History.Latest()
	hooks := release.TestHooks(record.Release, r.h.GetTest().GetFilters())
	cur.SetTestHooks(hooks)
	if failed == nil {
		said := "no test hooks"
		switch n := len(hooks); n {
		case 0:
		case 1:
			said = "1 test hook completed successfully"
		default:
			said = fmt.Sprintf("%d test hooks completed successfully", n)
		}
		r.conclude(helmv2.TestSuccessCondition, metav1.ConditionTrue, helmv2.TestSucceededReason,
			fmt.Sprintf("Helm test succeeded for release %s with chart %s: %s", cur.FullReleaseName(), cur.VersionedChartName(), said))
		return
	}
	r.h.Status.Failures++
	r.conclude(helmv2.TestSuccessCondition, metav1.ConditionFalse, helmv2.TestFailedReason,
		fmt.Sprintf("Helm test failed for release %s with chart %s: %s", cur.FullReleaseName(), cur.VersionedChartName(), failed))
	remediation := r.h.GetActiveRemediation()
	if remediation != nil && !remediation.MustIgnoreTestFailures(r.h.GetTest().IgnoreFailures) {
		remediation.IncrementFailureCount(r.h)
	}
}
