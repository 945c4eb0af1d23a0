package release

import (
	"fmt"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
)

const testEvent = helmrelease.HookTest

// state says how the last revision relates to what is wanted; the reason is enough.
func (n *next) state() Reason {
	last, latest := n.o.Last, n.hr.Status.History.Latest()
	switch {
	case last == nil || last.Status == common.StatusUninstalled:
		return Absent
	case latest == nil || !last.Verified || last.Version != latest.Version:
		return Unmanaged
	case last.Status == common.StatusFailed:
		return Failed
	case last.Status != common.StatusDeployed:
		return Unmanaged
	case last.Chart != n.w.Chart || last.ChartVersion != n.w.ChartVersion:
		return ChartChanged
	case latest.ConfigDigest != n.w.ConfigDigest:
		return ValuesChanged
	}
	if reason := n.renderers(); reason != InSync {
		return reason
	}
	if reason := n.tested(latest); reason != InSync {
		return reason
	}
	if n.o.Drift && n.hr.GetDriftDetection().MustDetectChanges() {
		return Drifted
	}
	return InSync
}

// renderers compares what else decides the manifest, of new generations only: what the
// status says of it is only written when a release succeeded. A rollback of ours was made because
// that of this generation did not.
func (n *next) renderers() Reason {
	s, marks := n.hr.Status, n.o.Last.Marks
	rolledBack := marks.Of(n.unit) && marks.Action == v2.ReleaseActionRollback
	switch {
	case s.ObservedGeneration == n.hr.Generation && !rolledBack:
		return InSync
	case s.ObservedPostRenderersDigest != n.w.RenderersDigest:
		return RenderersChanged
	case s.ObservedCommonMetadataDigest != n.w.MetadataDigest:
		return MetadataChanged
	}
	return InSync
}

func (n *next) tested(latest *v2.Snapshot) Reason {
	test := n.hr.GetTest()
	if !test.Enable {
		return InSync
	}
	if !latest.HasBeenTested() {
		return Untested
	}
	r := n.hr.GetActiveRemediation()
	if r != nil && !r.MustIgnoreTestFailures(test.IgnoreFailures) && latest.HasTestInPhase(helmrelease.HookPhaseFailed.String()) {
		return TestFailed
	}
	return InSync
}

// act turns the state into a step.
func (n *next) act(state Reason) Decision {
	switch state {
	case Absent:
		return n.install()
	case Unmanaged:
		return n.unmanaged()
	case ChartChanged, ValuesChanged, RenderersChanged, MetadataChanged:
		return n.outOfSync(state)
	case Untested:
		return Decision{Step: Test, Reason: Untested, Message: "the tests of the release have not run"}
	case Failed, TestFailed:
		return n.failed(state)
	case Drifted:
		if n.hr.GetDriftDetection().GetMode() == v2.DriftDetectionEnabled {
			return Decision{Step: HealDrift, Reason: Drifted, Message: "objects are not as the release has them"}
		}
		return Decision{Step: ReportDrift, Reason: Drifted, Message: "objects are not as the release has them"}
	default:
		return n.inSync()
	}
}

func (n *next) inSync() Decision {
	n.cut()
	if n.forced {
		return Decision{Step: Upgrade, Reason: Forced, Message: "an upgrade was asked for"}
	}
	return Decision{Step: None, Reason: InSync, Message: "the release is as wanted"}
}

// cut keeps, of the history in the status, what a remediation may need.
func (n *next) cut() {
	history := &n.hr.Status.History
	if n.hr.GetActiveRetry(n.w.RetryByDefault) != nil {
		history.TruncateIgnoringPreviousSnapshots()
		return
	}
	history.Truncate(n.ignoresTests())
}

func (n *next) ignoresTests() bool {
	ignore := n.hr.GetTest().IgnoreFailures
	if r := n.hr.GetActiveRemediation(); r != nil {
		ignore = r.MustIgnoreTestFailures(ignore)
	}
	return ignore
}

func (n *next) install() Decision {
	if n.hr.GetInstall().GetRemediation().RetriesExhausted(n.hr) && !n.forced {
		return n.exhausted("install")
	}
	return Decision{Step: Install, Reason: n.or(Absent), Message: "the release is not installed"}
}

// or is the reason, or that somebody asked.
func (n *next) or(reason Reason) Reason {
	if n.forced {
		return Forced
	}
	return reason
}

// unmanaged takes over a revision that somebody else made: as it is, where it is what would
// be made, else by an upgrade.
func (n *next) unmanaged() Decision {
	last := n.o.Last
	n.hr.Status.ClearHistory()
	same := last.Status == common.StatusDeployed && last.Chart == n.w.Chart && last.ChartVersion == n.w.ChartVersion &&
		last.Snapshot != nil && last.Snapshot.ConfigDigest == n.w.ConfigDigest && n.w.Manifest != "" && last.Manifest == n.w.Manifest
	if same && !n.forced {
		return Decision{Step: Adopt, Reason: Unmanaged, Message: fmt.Sprintf("revision %d is what would be made", last.Version)}
	}
	return Decision{Step: Upgrade, Reason: n.or(Unmanaged), Message: fmt.Sprintf("revision %d was made by somebody else", last.Version)}
}

func (n *next) outOfSync(reason Reason) Decision {
	if n.hr.GetUpgrade().GetRemediation().RetriesExhausted(n.hr) && !n.forced {
		return n.exhausted("upgrade")
	}
	words := map[Reason]string{
		ChartChanged: "the chart changed", ValuesChanged: "the values changed",
		RenderersChanged: "the post-renderers changed", MetadataChanged: "the common metadata changed",
	}
	return Decision{Step: Upgrade, Reason: reason, Message: words[reason]}
}

func (n *next) exhausted(action string) Decision {
	if last := n.hr.Status.LastAttemptedReleaseAction; last != "" {
		action = string(last)
	}
	failures := n.hr.Status.InstallFailures
	if r := n.hr.GetActiveRemediation(); r != nil {
		failures = r.GetFailureCount(n.hr)
	}
	return Decision{Step: Exhausted, Reason: RetriesExceeded, Message: fmt.Sprintf("Failed to %s after %d attempt(s)", action, failures)}
}

// failed is about a revision that failed, or whose tests did.
func (n *next) failed(state Reason) Decision {
	upgrade := Decision{Step: Upgrade, Reason: n.or(state), Message: "the last attempt failed"}
	if retry := n.hr.GetActiveRetry(n.w.RetryByDefault); retry != nil {
		n.hr.Status.History.TruncateIgnoringPreviousSnapshots()
		if left := n.retryIn(retry.GetRetryInterval()); left > 0 {
			return Decision{Step: Wait, Reason: RetryLater, After: left, Message: fmt.Sprintf("retrying after %s", retry.GetRetryInterval())}
		}
		return upgrade
	}
	remediation := n.hr.GetActiveRemediation()
	if remediation == nil || remediation.GetFailureCount(n.hr) <= 0 || n.forced {
		return upgrade
	}
	if remediation.RetriesExhausted(n.hr) && !remediation.MustRemediateLastFailure() {
		return n.exhausted("release")
	}
	n.hr.Status.History.Truncate(n.ignoresTests())
	if remediation.GetStrategy() == v2.UninstallRemediationStrategy {
		return Decision{
			Step: UninstallRemediation, Reason: state, Message: "the failed release is uninstalled",
			Old: n.hr.Status.History.Latest(), OldStorage: n.hr.Status.StorageNamespace,
		}
	}
	return n.rollback(state, upgrade)
}

// retryIn returns how long a retry still waits. Who changed something or asks does not wait.
func (n *next) retryIn(interval time.Duration) time.Duration {
	if n.changed || n.asked || n.forced || n.o.AttemptEnded.IsZero() {
		return 0
	}
	return interval - n.o.Now.Sub(n.o.AttemptEnded)
}

func (n *next) rollback(state Reason, upgrade Decision) Decision {
	previous := n.hr.Status.History.Previous(n.ignoresTests())
	switch {
	case previous == nil:
		return Decision{Step: Exhausted, Reason: NoRollbackTarget, Message: "Failed to perform remediation: there is no earlier release to roll back to"}
	case n.o.Previous == nil || n.o.Previous.Version != previous.Version || !n.o.Previous.Verified:
		upgrade.Message = fmt.Sprintf("revision %d, to roll back to, is not what was recorded", previous.Version)
		if n.hr.GetActiveRemediation().RetriesExhausted(n.hr) {
			// Another upgrade would fail as the last did, and be followed by the next one without end.
			return Decision{Step: Exhausted, Reason: NoRollbackTarget, Message: "Failed to perform remediation: " + upgrade.Message}
		}
		return upgrade
	}
	return Decision{Step: Rollback, Reason: state, Target: previous.Version, Message: fmt.Sprintf("the failed release is rolled back to revision %d", previous.Version)}
}
