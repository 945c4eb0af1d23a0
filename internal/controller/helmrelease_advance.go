package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
)

// maxSteps bounds what one reconcile does after another: no sequence of steps is longer
// that does not wait for anything.
const maxSteps = 8

// stepped is what became of a step.
type stepped struct {
	// more: what is to be done next is to be asked again at once.
	more bool
	// again is when to come back otherwise, if nothing happens until then.
	again time.Duration
}

func goOn() stepped                    { return stepped{more: true} }
func comeBack(d time.Duration) stepped { return stepped{again: d} }

// advance does what is to be done for the release, step by step, until there is
// nothing more or something has to be waited for.
func (r *helmReleaseRun) advance(ctx context.Context) time.Duration {
	if err := r.locate(); err != nil { //nolint:contextcheck // the watch outlives the call
		return r.fail(meta.ReconciliationFailedReason, err)
	}
	r.permitted()
	for range maxSteps {
		if err := r.look(ctx); err != nil {
			return r.failThere(reasonStateError, err)
		}
		if last := r.memory.last; last != nil {
			if err := r.rival(ctx, last.Marks, last.Status, r.memory.key.Name); err != nil {
				return r.fail(reasonStateError, err)
			}
		}
		manifest, err := r.comparable(ctx)
		if err != nil {
			return r.notReleased(err)
		}
		d := release.Next(r.observation(), r.asWanted(manifest))
		r.h.Status = *d.Status
		done := r.step(ctx, d)
		if !done.more {
			return done.again
		}
	}
	return time.Second
}

// reasonStateError is the toolkit's reason for a release of which it cannot be said how
// it stands.
const reasonStateError = "StateError"

func (r *helmReleaseRun) observation() release.Observed {
	m := r.memory
	return release.Observed{Now: r.now, Last: m.last, Previous: m.previous, AttemptEnded: m.ended}
}

func (r *helmReleaseRun) asWanted(manifest string) release.Wanted {
	w := r.wanted
	return release.Wanted{
		Release: r.h, Chart: w.chart.Name(), ChartVersion: w.chart.Version(), OCIDigest: w.ociDigest,
		ConfigDigest: w.config, RenderersDigest: w.renderers, MetadataDigest: w.metadata, Inputs: w.digest, Manifest: manifest,
	}
}

// step does what was decided.
func (r *helmReleaseRun) step(ctx context.Context, d release.Decision) stepped {
	switch d.Step {
	case release.None:
		return comeBack(r.settle(ctx))
	case release.Adopt:
		return r.adopt(ctx)
	case release.Install:
		return r.begin(ctx, helmv2.ReleaseActionInstall, d.Reason)
	case release.Upgrade:
		if r.memory.released == r.wanted.digest && isDifference(d.Reason) {
			return comeBack(r.settle(ctx))
		}
		return r.begin(ctx, helmv2.ReleaseActionUpgrade, d.Reason)
	case release.Resume:
		return r.resume(ctx)
	case release.Unlock:
		return r.unlock(ctx, d)
	case release.Wait:
		return r.later(d)
	case release.Exhausted:
		return r.exhausted(d)
	case release.Test:
		return r.test(ctx)
	case release.Rollback:
		return r.rollback(ctx, d.Target)
	case release.UninstallRemediation:
		return r.uninstall(ctx, helmv2.ReleaseActionUninstallRemediation, d.Old, d.OldStorage)
	case release.Uninstall:
		return r.uninstall(ctx, helmv2.ReleaseActionUninstall, d.Old, d.OldStorage)
	default: // the drift of a release that is as wanted is found when it is settled
		return comeBack(r.settle(ctx))
	}
}

// isDifference reports whether a reason is that what is wanted is not what is recorded.
func isDifference(reason release.Reason) bool {
	switch reason {
	case release.ChartChanged, release.ValuesChanged, release.RenderersChanged, release.MetadataChanged:
		return true
	default:
		return false
	}
}

// unlock marks a pending revision as failed that nobody goes on with.
func (r *helmReleaseRun) unlock(ctx context.Context, d release.Decision) stepped {
	m := r.memory
	record := m.record
	was := record.Info.Status
	if d.Reason == release.Overtaken {
		if err := r.inheritOvertaken(ctx, record.Release); err != nil {
			return comeBack(r.failThere(reasonStateError, err))
		}
	}
	record.SetStatus("failed", fmt.Sprintf("Release unlocked from stale '%s' state", was))
	if d.Reason != release.Overtaken { // what was ours stays known as such
		record.Marks = release.Marks{}
	}
	if err := m.store.Update(ctx, record); err != nil {
		return comeBack(r.failThere(reasonStateError, err))
	}
	r.log.Info("unlocked", "release", record.Name, "revision", record.Version, "was", was.String(), "reason", string(d.Reason))
	m.known, m.waitingSince = false, time.Time{}
	return goOn()
}

// later waits until the next attempt is due, or somebody else is done.
func (r *helmReleaseRun) later(d release.Decision) stepped {
	if d.Reason == release.Busy {
		return comeBack(min(d.After, r.wait("PendingRelease", d.Message, true)))
	}
	r.observed()
	r.summarize()
	report.Mark(r.h, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, d.Message)
	return comeBack(max(d.After, shortestWait))
}

// exhausted does nothing more until something changes or somebody asks.
func (r *helmReleaseRun) exhausted(d release.Decision) stepped {
	r.observed()
	r.summarize()
	report.Unmark(r.h, meta.ReconcilingCondition)
	report.Mark(r.h, meta.StalledCondition, metav1.ConditionTrue, string(d.Reason), d.Message)
	return comeBack(max(r.h.Spec.Interval.Duration, shortestWait))
}

// isAbsent reports whether a revision is not in the storage.
func isAbsent(err error) bool { return errors.Is(err, release.ErrAbsent) }
