package release

import (
	"strings"
	"testing"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"helm.sh/helm/v4/pkg/release/common"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// question is one row's observation, changed step by step from a release that is in sync.
type question struct {
	o  Observed
	w  Wanted
	hr *v2.HelmRelease
}

// settled is a HelmRelease whose revision 2 is deployed as wanted; revision 1 was before.
func settled() *question {
	snapshot := func(version int, status common.Status) *v2.Snapshot {
		return &v2.Snapshot{
			APIVersion: v2.CurrentSnapshotAPIVersion, Name: "demo", Namespace: "apps", Version: version, Status: status.String(),
			ChartName: "demo", ChartVersion: "1.0.0", ConfigDigest: "sha256:values", Digest: "sha256:x",
		}
	}
	hr := &v2.HelmRelease{
		ObjectMeta: metav1.ObjectMeta{Name: "demo", Namespace: "apps", Generation: 3},
		Status: v2.HelmReleaseStatus{
			ObservedGeneration: 3, LastAttemptedGeneration: 3, LastAttemptedRevision: "1.0.0", LastAttemptedConfigDigest: "sha256:values",
			LastAttemptedReleaseAction: v2.ReleaseActionUpgrade, StorageNamespace: "apps",
			History: v2.Snapshots{snapshot(2, common.StatusDeployed), snapshot(1, common.StatusSuperseded)},
		},
	}
	ours := Marks{Unit: "apps/demo", Inputs: "in", Action: v2.ReleaseActionUpgrade}
	revision := func(version int, status common.Status) *Revision {
		return &Revision{
			Version: version, Status: status, Chart: "demo", ChartVersion: "1.0.0", Marks: ours, Verified: true, Manifest: "m",
			Snapshot: snapshot(version, status), WrittenAt: day,
		}
	}
	return &question{
		hr: hr,
		o:  Observed{Now: day.Add(time.Hour), Last: revision(2, common.StatusDeployed), Previous: revision(1, common.StatusSuperseded)},
		w:  Wanted{Release: hr, Chart: "demo", ChartVersion: "1.0.0", ConfigDigest: "sha256:values", Inputs: "in"},
	}
}

// lastIs makes the newest revision one of this status, recorded in the status as well.
func (q *question) lastIs(status common.Status) {
	q.o.Last.Status = status
	q.o.Last.Snapshot.Status = status.String()
	q.hr.Status.History[0].Status = status.String()
}

// failedUpgrade: revision 2 failed, as an upgrade that failed so often.
func (q *question) failedUpgrade(failures int64) {
	q.lastIs(common.StatusFailed)
	q.hr.Status.UpgradeFailures, q.hr.Status.Failures = failures, failures
}

// failedInstall: revision 1 is all there is, and failed.
func (q *question) failedInstall(failures int64) {
	q.lastIs(common.StatusFailed)
	q.hr.Status.History = q.hr.Status.History[:1]
	q.o.Previous = nil
	q.hr.Status.LastAttemptedReleaseAction = v2.ReleaseActionInstall
	q.hr.Status.InstallFailures, q.hr.Status.Failures = failures, failures
}

// foreign: somebody else wrote the newest revision.
func (q *question) foreign() {
	q.o.Last.Marks, q.o.Last.Verified = Marks{}, false
}

func (q *question) annotate(pairs ...string) {
	q.hr.Annotations = map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		q.hr.Annotations[pairs[i]] = pairs[i+1]
	}
}

func (q *question) force() {
	q.annotate(meta.ReconcileRequestAnnotation, "now", meta.ForceRequestAnnotation, "now")
}

func (q *question) retries(n int) { // of both actions
	q.hr.Spec.Install = &v2.Install{Remediation: &v2.InstallRemediation{Retries: n}}
	q.hr.Spec.Upgrade = &v2.Upgrade{Remediation: &v2.UpgradeRemediation{Retries: n}}
}

func (q *question) retryOnFailure() {
	strategy := string(v2.ActionStrategyRetryOnFailure)
	q.hr.Spec.Install = &v2.Install{Strategy: &v2.InstallStrategy{Name: strategy}}
	q.hr.Spec.Upgrade = &v2.Upgrade{Strategy: &v2.UpgradeStrategy{Name: strategy, RetryInterval: &metav1.Duration{Duration: time.Minute}}}
}

func (q *question) tests(phase string, ignore bool) {
	q.hr.Spec.Test = &v2.Test{Enable: true, IgnoreFailures: ignore}
	if phase != "" {
		q.hr.Status.History[0].SetTestHooks(map[string]*v2.TestHookStatus{"test": {Phase: phase}})
	}
}

type row struct {
	name   string
	change func(*question)
	step   Step
	why    Reason
	reason string
}

var inSyncRows = []row{
	{"in sync", func(*question) {}, None, InSync, "nothing differs"},
	{"nothing there", func(q *question) { q.o = Observed{Now: q.o.Now}; q.hr.Status = v2.HelmReleaseStatus{} }, Install, Absent, "a first install"},
	{"uninstalled by somebody", func(q *question) { q.o.Last = nil }, Install, Absent, "what was removed is installed again"},
	{"uninstalled with history", func(q *question) { q.lastIs(common.StatusUninstalled); q.foreign() }, Install, Absent, "an uninstalled release cannot be upgraded"},
	{"another chart version", func(q *question) { q.w.ChartVersion = "1.1.0" }, Upgrade, ChartChanged, "the chart decides"},
	{"another chart name, in place", func(q *question) {
		q.w.Chart = "other"
		q.hr.Spec.Upgrade = &v2.Upgrade{ChartNameChangeStrategy: v2.ChartNameChangeStrategyInPlaceUpdate}
	}, Upgrade, ChartChanged, "the strategy says to upgrade"},
	{"other values", func(q *question) { q.w.ConfigDigest = "sha256:other" }, Upgrade, ValuesChanged, "the values decide"},
	{"post-renderers", func(q *question) {
		q.hr.Generation, q.w.RenderersDigest = 4, "sha256:other"
	}, Upgrade, RenderersChanged, "a new generation with others"},
	{"post-renderers of this generation", func(q *question) { q.w.RenderersDigest = "sha256:other" }, None, InSync, "the generation has been observed"},
	{"common metadata", func(q *question) {
		q.hr.Generation, q.w.MetadataDigest = 4, "sha256:other"
	}, Upgrade, MetadataChanged, "a new generation with other metadata"},
	{"another generation alone", func(q *question) { q.hr.Generation = 4 }, None, InSync, "an interval changes no release"},
	{"forced", (*question).force, Upgrade, Forced, "somebody asks"},
	{"forced and handled", func(q *question) { q.force(); q.hr.Status.LastHandledForceAt = "now" }, None, InSync, "a request counts once"},
	{"drift, healed", func(q *question) {
		q.o.Drift, q.hr.Spec.DriftDetection = true, &v2.DriftDetection{Mode: v2.DriftDetectionEnabled}
	}, HealDrift, Drifted, "the mode is enabled"},
	{"drift, told", func(q *question) {
		q.o.Drift, q.hr.Spec.DriftDetection = true, &v2.DriftDetection{Mode: v2.DriftDetectionWarn}
	}, ReportDrift, Drifted, "the mode is warn"},
	{"drift, not looked at", func(q *question) { q.o.Drift = true }, None, InSync, "detection is off by default"},
	{"untested", func(q *question) { q.tests("", false) }, Test, Untested, "tests are enabled"},
	{"tested", func(q *question) { q.tests("Succeeded", false) }, None, InSync, "they passed"},
	{"test failed", func(q *question) { q.tests("Failed", false); q.hr.Status.UpgradeFailures = 1 }, Exhausted, RetriesExceeded, "it counts as a failed release, and there are no retries"},
	{"test failed, ignored", func(q *question) { q.tests("Failed", true) }, None, InSync, "the spec says so"},
	{"test failed, rolled back", func(q *question) { q.retries(1); q.tests("Failed", false); q.hr.Status.UpgradeFailures = 1 }, Rollback, TestFailed, "a retry is left"},
}

var failureRows = []row{
	{"upgrade failed, no retries", func(q *question) { q.failedUpgrade(1) }, Exhausted, RetriesExceeded, "the default is one attempt, not remediated"},
	{"upgrade failed, last remediated", func(q *question) {
		q.failedUpgrade(1)
		yes := true
		q.hr.Spec.Upgrade = &v2.Upgrade{Remediation: &v2.UpgradeRemediation{RemediateLastFailure: &yes}}
	}, Rollback, Failed, "remediateLastFailure without retries"},
	{"upgrade failed, retries left", func(q *question) { q.retries(2); q.failedUpgrade(1) }, Rollback, Failed, "before each retry"},
	{"upgrade failed, last of the retries", func(q *question) { q.retries(2); q.failedUpgrade(3) }, Rollback, Failed, "with retries the last failure is remediated"},
	{"rolled back, retries left", func(q *question) {
		q.retries(2)
		q.w.ChartVersion, q.hr.Status.LastAttemptedRevision, q.hr.Status.UpgradeFailures = "1.1.0", "1.1.0", 2
	}, Upgrade, ChartChanged, "the upgrade is tried again"},
	{"rolled back, no retries left", func(q *question) {
		q.retries(2)
		q.w.ChartVersion, q.hr.Status.LastAttemptedRevision, q.hr.Status.UpgradeFailures = "1.1.0", "1.1.0", 3
	}, Exhausted, RetriesExceeded, "three attempts failed"},
	{"rolled back, forced", func(q *question) {
		q.force()
		q.w.ChartVersion, q.hr.Status.LastAttemptedRevision, q.hr.Status.UpgradeFailures = "1.1.0", "1.1.0", 3
	}, Upgrade, ChartChanged, "somebody asks"},
	{"exhausted, new values", func(q *question) { q.failedUpgrade(9); q.w.ConfigDigest = "sha256:other" }, Upgrade, Failed, "a change resets the count"},
	{"exhausted, reset", func(q *question) {
		q.failedUpgrade(9)
		q.annotate(meta.ReconcileRequestAnnotation, "now", v2.ResetRequestAnnotation, "now")
	}, Upgrade, Failed, "somebody asks to reset"},
	{"exhausted, forced", func(q *question) { q.failedUpgrade(9); q.force() }, Upgrade, Forced, "somebody asks"},
	{"uninstall strategy", func(q *question) {
		q.failedUpgrade(1)
		strategy := v2.UninstallRemediationStrategy
		q.hr.Spec.Upgrade = &v2.Upgrade{Remediation: &v2.UpgradeRemediation{Retries: 1, Strategy: &strategy}}
	}, UninstallRemediation, Failed, "the strategy says so"},
	{"nothing to roll back to", func(q *question) {
		q.retries(1)
		q.failedUpgrade(1)
		q.hr.Status.History = q.hr.Status.History[:1]
	}, Exhausted, NoRollbackTarget, "there is no earlier release"},
	{"rollback target gone", func(q *question) { q.retries(1); q.failedUpgrade(1); q.o.Previous = nil }, Upgrade, Failed, "an upgrade may cure what a rollback cannot"},
	{"rollback target gone, no retries left", func(q *question) { q.retries(1); q.failedUpgrade(2); q.o.Previous = nil }, Exhausted, NoRollbackTarget, "upgrades that fail would follow each other without end"},
	{"rollback target changed", func(q *question) {
		q.retries(1)
		q.failedUpgrade(1)
		q.o.Previous.Verified, q.o.Previous.Marks = false, Marks{}
	}, Upgrade, Failed, "it is not what was recorded"},
	{"install failed, no retries", func(q *question) { q.failedInstall(1) }, Exhausted, RetriesExceeded, "the default is one attempt, left as it is"},
	{"install failed, retries left", func(q *question) { q.retries(1); q.failedInstall(1) }, UninstallRemediation, Failed, "an install is remediated by uninstalling"},
	{"install failed, last of the retries", func(q *question) { q.retries(1); q.failedInstall(2) }, Exhausted, RetriesExceeded, "the last failure is left to be looked at"},
	{"install failed, forever", func(q *question) { q.retries(-1); q.failedInstall(99) }, UninstallRemediation, Failed, "-1 never ends"},
	{"uninstalled, retries left", func(q *question) {
		q.retries(1)
		q.o.Last = nil
		q.hr.Status.InstallFailures = 1
	}, Install, Absent, "the install is tried again"},
	{"uninstalled, no retries left", func(q *question) { q.retries(1); q.o.Last = nil; q.hr.Status.InstallFailures = 2 }, Exhausted, RetriesExceeded, "two attempts failed"},
	{"retry strategy, too soon", func(q *question) {
		q.retryOnFailure()
		q.failedUpgrade(3)
		q.o.AttemptEnded = q.o.Now.Add(-20 * time.Second)
	}, Wait, RetryLater, "the interval is not over"},
	{"retry strategy", func(q *question) {
		q.retryOnFailure()
		q.failedUpgrade(3)
		q.o.AttemptEnded = q.o.Now.Add(-time.Minute)
	}, Upgrade, Failed, "the interval is over"},
	{"retry strategy, asked", func(q *question) {
		q.retryOnFailure()
		q.failedUpgrade(3)
		q.annotate(meta.ReconcileRequestAnnotation, "now")
		q.o.AttemptEnded = q.o.Now
	}, Upgrade, Failed, "who asks does not wait"},
	{"retry strategy of an install", func(q *question) { q.retryOnFailure(); q.failedInstall(9) }, Upgrade, Failed, "a failed install is upgraded, whatever the count"},
	{"retry by default", func(q *question) { q.failedUpgrade(3); q.w.RetryByDefault = true }, Upgrade, Failed, "the feature gate says so"},
}

var otherRows = []row{
	{"made by helm, alike", func(q *question) { q.foreign(); q.hr.Status.History = nil; q.w.Manifest = "m" }, Adopt, Unmanaged, "it is what would be made"},
	{"made by helm, not rendered", func(q *question) { q.foreign(); q.hr.Status.History = nil }, Upgrade, Unmanaged, "it is not known to be alike"},
	{"made by helm, another manifest", func(q *question) { q.foreign(); q.hr.Status.History = nil; q.w.Manifest = "n" }, Upgrade, Unmanaged, "something else decides the manifest"},
	{"made by helm, other values", func(q *question) {
		q.foreign()
		q.hr.Status.History = nil
		q.w.Manifest, q.o.Last.Snapshot.ConfigDigest = "m", "sha256:other"
	}, Upgrade, Unmanaged, "the values differ"},
	{"upgraded by somebody", func(q *question) { q.foreign(); q.o.Last.Version = 3; q.o.Last.Snapshot.Version = 3 }, Upgrade, Unmanaged, "what runs is not what was recorded"},
	{"changed by somebody", func(q *question) { q.foreign() }, Upgrade, Unmanaged, "the digest differs"},
	{"taken over from the toolkit", func(q *question) { q.o.Last.Marks = Marks{} }, None, InSync, "the digest in the status is the same"},
	{"deployed by us, not told", func(q *question) {
		q.o.Last.Version, q.o.Last.Snapshot.Version, q.o.Last.Verified = 3, 3, false
	}, None, InSync, "the engine was killed between the record and the status"},
	{"failed by us, not told", func(q *question) {
		q.retries(1)
		q.o.Last.Status, q.o.Last.Verified = common.StatusFailed, false
		q.o.Last.Version, q.o.Last.Snapshot.Version, q.o.Last.Snapshot.Status = 3, 3, "failed"
		q.o.Previous = &Revision{Version: 2, Verified: true}
	}, Rollback, Failed, "the failure is counted"},
	{"overtaken by us, not told", func(q *question) {
		q.retries(1)
		q.o.Last.Status, q.o.Last.Verified, q.o.Last.Marks.Inputs = common.StatusFailed, false, "other"
		q.o.Last.Version, q.o.Last.Snapshot.Version, q.o.Last.Snapshot.Status = 3, 3, "failed"
	}, Upgrade, Failed, "it failed with what is not wanted any more, which counts as nothing"},
	{"pending, ours", func(q *question) { q.lastIs(common.StatusPendingUpgrade) }, Resume, Interrupted, "it goes on where the record ends"},
	{"pending, ours, other inputs", func(q *question) { q.lastIs(common.StatusPendingUpgrade); q.w.Inputs = "other" }, Unlock, Overtaken, "a new revision supersedes a wait"},
	{"rolling back, other inputs", func(q *question) { q.lastIs(common.StatusPendingRollback); q.w.Inputs = "other" }, Resume, Interrupted, "a rollback does not depend on them"},
	{"uninstalling, ours", func(q *question) { q.lastIs(common.StatusUninstalling) }, Resume, Interrupted, "half a release is none"},
	{"pending, by helm now", func(q *question) {
		q.lastIs(common.StatusPendingUpgrade)
		q.foreign()
		q.o.Last.WrittenAt = q.o.Now.Add(-time.Minute)
	}, Wait, Busy, "somebody runs helm upgrade"},
	{"pending, left by helm", func(q *question) { q.lastIs(common.StatusPendingUpgrade); q.foreign() }, Unlock, Locked, "nobody has written for the timeout"},
	{"pending, left by the toolkit", func(q *question) {
		q.lastIs(common.StatusPendingUpgrade)
		q.foreign()
		q.o.Last.Writer, q.o.Last.WrittenAt = Manager, q.o.Now
	}, Unlock, Locked, "it does not run beside this engine"},
	{"pending, by helm, asked", func(q *question) {
		q.lastIs(common.StatusPendingUpgrade)
		q.foreign()
		q.o.Last.WrittenAt = q.o.Now
		q.annotate(meta.ReconcileRequestAnnotation, "now")
	}, Unlock, Locked, "a person takes it upon them"},
	{"another release name", func(q *question) { q.hr.Spec.ReleaseName = "other" }, Uninstall, TargetChanged, "the old one goes first"},
	{"another target namespace", func(q *question) { q.hr.Spec.TargetNamespace = "other" }, Uninstall, TargetChanged, "the old one goes first"},
	{"another storage namespace", func(q *question) { q.hr.Spec.StorageNamespace = "other" }, Uninstall, TargetChanged, "the old one goes first"},
	{"another chart name", func(q *question) { q.w.Chart = "other" }, Uninstall, TargetChanged, "the default is to install anew"},
	{"deleted", func(q *question) { now := metav1.Now(); q.hr.DeletionTimestamp = &now }, Uninstall, Deleted, "what it installed goes with it"},
	{"deleted, nothing installed", func(q *question) {
		now := metav1.Now()
		q.hr.DeletionTimestamp, q.hr.Status, q.o = &now, v2.HelmReleaseStatus{}, Observed{}
	}, None, Absent, "there is nothing to remove"},
}

func TestNext(t *testing.T) {
	for _, rows := range [][]row{inSyncRows, failureRows, otherRows} {
		for _, c := range rows {
			t.Run(c.name, func(t *testing.T) {
				q := settled()
				c.change(q)
				before := q.hr.DeepCopy()
				d := Next(q.o, q.w)
				if d.Step != c.step || d.Reason != c.why {
					t.Errorf("%s for %s (%s), want %s for %s: %s", d.Step, d.Reason, d.Message, c.step, c.why, c.reason)
				}
				if d.Message == "" || d.Status == nil {
					t.Error("no message, or no status")
				}
				if !equality.Semantic.DeepEqual(before, q.hr) {
					t.Error("asking changed the HelmRelease")
				}
			})
		}
	}
}

func TestNextTellsWhatTheStepNeeds(t *testing.T) {
	q := settled()
	q.retries(1)
	q.failedUpgrade(1)
	if d := Next(q.o, q.w); d.Target != 1 {
		t.Errorf("rolls back to revision %d", d.Target)
	}
	q = settled()
	q.hr.Spec.ReleaseName = "other"
	if d := Next(q.o, q.w); d.Old == nil || d.Old.Name != "demo" || d.OldStorage != "apps" || !strings.Contains(d.Message, "release name") {
		t.Errorf("uninstalls %+v in %s: %s", d.Old, d.OldStorage, d.Message)
	}
	q = settled()
	q.failedUpgrade(1)
	if d := Next(q.o, q.w); d.Message != "Failed to upgrade after 1 attempt(s)" {
		t.Errorf("exhausted says %q", d.Message)
	}
	q = settled()
	q.lastIs(common.StatusUninstalling)
	q.o.Last.Marks.Action = v2.ReleaseActionUninstallRemediation
	if d := Next(q.o, q.w); d.Action != v2.ReleaseActionUninstallRemediation {
		t.Errorf("resumes %q", d.Action)
	}
	q = settled()
	q.retryOnFailure()
	q.failedUpgrade(3)
	q.o.AttemptEnded = q.o.Now.Add(-20 * time.Second)
	if d := Next(q.o, q.w); d.After != 40*time.Second {
		t.Errorf("waits %s", d.After)
	}
}

func TestNextKeepsTheStatus(t *testing.T) {
	q := settled()
	q.hr.Status.Failures, q.hr.Status.UpgradeFailures = 4, 3
	q.w.ChartVersion, q.w.OCIDigest, q.w.ConfigDigest = "2.0.0", "sha256:oci", "sha256:new"
	q.hr.Generation = 9
	s := Next(q.o, q.w).Status
	if s.Failures != 0 || s.UpgradeFailures != 0 {
		t.Error("the failures of another chart still count")
	}
	if s.LastAttemptedGeneration != 9 || s.LastAttemptedRevision != "2.0.0" || s.LastAttemptedRevisionDigest != "sha256:oci" || s.LastAttemptedConfigDigest != "sha256:new" {
		t.Errorf("the attempt is noted as %+v", s)
	}

	q = settled()
	q.force()
	if s := Next(q.o, q.w).Status; s.LastHandledForceAt != "now" {
		t.Error("the force request is not noted as handled")
	}

	q = settled()
	q.o.Last.Version, q.o.Last.Snapshot.Version, q.o.Last.Verified = 3, 3, false
	if s := Next(q.o, q.w).Status; len(s.History) != 2 || s.History[0].Version != 3 {
		t.Errorf("a revision that was not told is noted as %+v", s.History)
	}

	q = settled()
	q.retries(1)
	q.o.Last.Status, q.o.Last.Verified = common.StatusFailed, false
	q.o.Last.Version, q.o.Last.Snapshot.Version, q.o.Last.Snapshot.Status = 3, 3, "failed"
	if s := Next(q.o, q.w).Status; s.UpgradeFailures != 1 || s.Failures != 1 {
		t.Errorf("a failure that was not told counts as %d, %d", s.UpgradeFailures, s.Failures)
	}

	q = settled()
	q.tests("", false)
	q.o.Last.Snapshot.SetTestHooks(map[string]*v2.TestHookStatus{"test": {Phase: "Succeeded"}})
	d := Next(q.o, q.w)
	if d.Step != None || !d.Status.History[0].HasBeenTested() {
		t.Errorf("tests that were not told: %s, %+v", d.Step, d.Status.History[0])
	}

	q = settled()
	q.o.Last = nil
	q.hr.Status.History = nil
	q.hr.Status.StorageNamespace = ""
	if s := Next(q.o, q.w).Status; s.StorageNamespace != "apps" {
		t.Errorf("the storage is noted as %q", s.StorageNamespace)
	}
}
