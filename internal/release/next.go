package release

import (
	"fmt"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Step is what is to be done next for a release. The set is closed.
type Step string

// The steps.
const (
	// None: all is as it should be.
	None Step = "None"
	// Install makes the first revision, or the first after an uninstall.
	Install Step = "Install"
	// Upgrade makes the next revision.
	Upgrade Step = "Upgrade"
	// Resume goes on with a pending revision of ours, where its record ends;
	// Decision.Action says what it was.
	Resume Step = "Resume"
	// Unlock marks a pending revision as failed: nobody goes on with it.
	Unlock Step = "Unlock"
	// Adopt takes a revision as it is: it is what would be made. The status notes it,
	// and no revision is made.
	Adopt Step = "Adopt"
	// Test runs the tests of the last revision.
	Test Step = "Test"
	// Rollback remediates: a revision with the content of Decision.Target.
	Rollback Step = "Rollback"
	// UninstallRemediation remediates by uninstalling.
	UninstallRemediation Step = "UninstallRemediation"
	// Uninstall removes Decision.Old: the HelmRelease goes, or names another release now.
	Uninstall Step = "Uninstall"
	// HealDrift applies what somebody else changed; ReportDrift only tells of it.
	HealDrift   Step = "HealDrift"
	ReportDrift Step = "ReportDrift"
	// Wait: nothing before Decision.After.
	Wait Step = "Wait"
	// Exhausted: nothing more until something changes or somebody asks.
	Exhausted Step = "Exhausted"
)

// Reason says why a step is the next. The set is closed.
type Reason string

// The reasons.
const (
	InSync           Reason = "InSync"
	Absent           Reason = "Absent"
	Unmanaged        Reason = "Unmanaged"
	ChartChanged     Reason = "ChartChanged"
	ValuesChanged    Reason = "ValuesChanged"
	RenderersChanged Reason = "PostRenderersChanged"
	MetadataChanged  Reason = "CommonMetadataChanged"
	Untested         Reason = "Untested"
	TestFailed       Reason = "TestFailed"
	Failed           Reason = "Failed"
	Drifted          Reason = "Drifted"
	Forced           Reason = "ForceRequested"
	Interrupted      Reason = "Interrupted"
	Overtaken        Reason = "Overtaken"
	Locked           Reason = "Locked"
	Busy             Reason = "SomebodyElseIsAtIt"
	RetryLater       Reason = "RetryLater"
	TargetChanged    Reason = "ReleaseTargetChanged"
	Deleted          Reason = "Deleted"
	RetriesExceeded  Reason = "RetriesExceeded"
	NoRollbackTarget Reason = "MissingRollbackTarget"
)

// Revision is what Next has to know of a stored revision.
type Revision struct {
	Version int
	Status  common.Status
	// Chart is the chart that it was made from.
	Chart, ChartVersion string
	// Marks are those of the record.
	Marks Marks
	// Verified: the snapshot in the status says the same.
	Verified bool
	// Snapshot is what the status would say of it.
	Snapshot *v2.Snapshot
	// Manifest is its [ManifestDigest]; may be empty where the render is not known either.
	Manifest string
	// Writer is who wrote it last, and WrittenAt when.
	Writer    string
	WrittenAt time.Time
}

// Observed is what is.
type Observed struct {
	Now time.Time
	// Last is the newest revision in the storage; nil: there is none.
	Last *Revision
	// Previous is the revision that [RollbackTarget] names; nil: the storage holds none.
	Previous *Revision
	// Drift: the ledger knows of an object that is not as it was applied.
	Drift bool
	// AttemptEnded is when the last attempt of this process ended; zero: not known.
	AttemptEnded time.Time
}

// Wanted is what should be.
type Wanted struct {
	// Release is the HelmRelease; it is not changed.
	Release *v2.HelmRelease
	// Chart and ChartVersion are those of the chart, the version as it will be recorded.
	Chart, ChartVersion string
	// OCIDigest is the digest of the chart's artifact; may be empty.
	OCIDigest string
	// ConfigDigest is that of the values, as a [Snapshot] has it.
	ConfigDigest string
	// RenderersDigest and MetadataDigest are those of the post-renderers and of the common
	// metadata, as the status holds them.
	RenderersDigest, MetadataDigest string
	// Inputs identifies all that decides what is rendered; it is compared with the marks of
	// a pending revision.
	Inputs string
	// Manifest is the [ManifestDigest] of the render; empty: not rendered.
	Manifest string
	// RetryByDefault: an action without a strategy is retried and not remediated.
	RetryByDefault bool
}

// Decision is what Next decided.
type Decision struct {
	Step   Step
	Reason Reason
	// Message says it for people, in one line.
	Message string
	// Action is what a Resume goes on with.
	Action v2.ReleaseAction
	// Target is the revision that a Rollback goes back to.
	Target int
	// Old is what an Uninstall or UninstallRemediation removes, and OldStorage the namespace
	// of its storage.
	Old        *v2.Snapshot
	OldStorage string
	// After is how long a Wait or a retry waits.
	After time.Duration
	// Status is the status as the decision leaves it: requests handled, failures reset,
	// history cut, and revisions noted that an earlier process made without coming to it.
	// It is to be kept before the step begins.
	Status *v2.HelmReleaseStatus
}

// Of reduces a record to what Next has to know, for the HelmRelease. A nil record
// gives nil.
func Of(r *Record, hr *v2.HelmRelease) (*Revision, error) {
	if r == nil {
		return nil, nil
	}
	out := &Revision{
		Version: r.Version, Status: r.Info.Status, Marks: r.Marks, Manifest: ManifestDigest(r.Release),
		Writer: r.Writer, WrittenAt: r.WrittenAt,
	}
	if r.Chart != nil && r.Chart.Metadata != nil {
		out.Chart, out.ChartVersion = r.Chart.Metadata.Name, r.Chart.Metadata.Version
	}
	if r.Info.LastDeployed.After(out.WrittenAt) {
		out.WrittenAt = r.Info.LastDeployed
	}
	oci := ""
	action := r.Marks.Action
	for _, s := range hr.Status.History {
		if s.Targets(r.Name, r.Namespace, r.Version) {
			oci, out.Verified = s.OCIDigest, Verified(s, r.Release)
			if action == "" {
				action = s.Action
			}
		}
	}
	if oci == "" && r.Marks.Of(types.NamespacedName{Namespace: hr.Namespace, Name: hr.Name}) {
		oci = hr.Status.LastAttemptedRevisionDigest
	}
	var err error
	out.Snapshot, err = Snapshot(r.Release, oci, action)
	if err == nil && r.Marks.Event == testEvent {
		hooks := TestHooks(r.Release, hr.GetTest().GetFilters())
		out.Snapshot.TestHooks = &hooks
	}
	return out, err
}

// RollbackTarget returns the snapshot that a rollback of the HelmRelease goes back to;
// nil where there is none.
func RollbackTarget(hr *v2.HelmRelease) *v2.Snapshot {
	r := hr.GetUpgrade().GetRemediation()
	history := append(v2.Snapshots(nil), hr.Status.History...) // asking sorts
	return history.Previous(r.MustIgnoreTestFailures(hr.GetTest().IgnoreFailures))
}

// Next returns what is to be done next. It asks nobody and changes nothing. The rules are
// those of the toolkit's engine, which docs/design/helm.md tells where they differ.
func Next(o Observed, w Wanted) Decision {
	hr := *w.Release
	hr.Status = *w.Release.Status.DeepCopy()
	n := &next{o: o, w: w, hr: &hr, unit: types.NamespacedName{Namespace: hr.Namespace, Name: hr.Name}}
	d := n.decide()
	d.Status = &hr.Status
	return d
}

// next is one question; hr is a copy whose status it changes.
type next struct {
	o    Observed
	w    Wanted
	hr   *v2.HelmRelease
	unit types.NamespacedName
	// forced: somebody asked for a release whatever the state is; asked: somebody asked
	// for a reconciliation.
	forced, asked bool
	// changed: what is wanted is not what was last attempted.
	changed bool
}

func (n *next) decide() Decision {
	if !n.hr.DeletionTimestamp.IsZero() {
		return n.deletion()
	}
	if reason, changed := n.targetChanged(); changed {
		return n.uninstall(TargetChanged, reason+" changed: the release of before is uninstalled first")
	}
	n.begin()
	if n.o.Last != nil && underway(n.o.Last.Status) {
		return n.pending()
	}
	n.note()
	return n.act(n.state())
}

// deletion uninstalls what there is.
func (n *next) deletion() Decision {
	if n.hr.Status.StorageNamespace == "" || n.hr.Status.History.Latest() == nil && (n.o.Last == nil || !n.o.Last.Marks.Of(n.unit)) {
		return Decision{Step: None, Reason: Absent, Message: "nothing is installed"}
	}
	return n.uninstall(Deleted, "the HelmRelease is deleted")
}

func (n *next) uninstall(reason Reason, message string) Decision {
	old := n.hr.Status.History.Latest()
	if old == nil {
		old = n.o.Last.Snapshot
	}
	return Decision{Step: Uninstall, Reason: reason, Message: message, Old: old, OldStorage: n.hr.Status.StorageNamespace}
}

// targetChanged says which part of what the release is called is another now.
func (n *next) targetChanged() (string, bool) {
	latest := n.hr.Status.History.Latest()
	switch {
	case n.hr.Status.StorageNamespace == "" || latest == nil:
		return "", false
	case n.hr.GetStorageNamespace() != n.hr.Status.StorageNamespace:
		return "storage namespace", true
	case n.hr.GetReleaseNamespace() != latest.Namespace:
		return "release namespace", true
	case ShortName(n.hr.GetReleaseName()) != latest.Name:
		return "release name", true
	case n.w.Chart != "" && n.w.Chart != latest.ChartName:
		return "chart name", n.hr.GetUpgrade().GetChartNameChangeStrategy() == v2.ChartNameChangeStrategyReinstall
	}
	return "", false
}

// begin notes the attempt in the status, and resets what counts failures when something
// has changed since the last.
func (n *next) begin() {
	s := &n.hr.Status
	token, asks := meta.ReconcileAnnotationValue(n.hr.GetAnnotations())
	n.asked = asks && token != s.GetLastHandledReconcileRequest()
	n.forced = v2.ShouldHandleForceRequest(n.hr)
	reset := v2.ShouldHandleResetRequest(n.hr)
	n.changed = s.LastAttemptedGeneration != n.hr.Generation || s.LastAttemptedRevision != n.w.ChartVersion ||
		s.LastAttemptedConfigDigest != "" && s.LastAttemptedConfigDigest != n.w.ConfigDigest
	if n.changed || reset {
		s.ClearFailures()
	}
	s.StorageNamespace = n.hr.GetStorageNamespace()
	s.LastAttemptedGeneration = n.hr.Generation
	s.LastAttemptedRevision, s.LastAttemptedRevisionDigest = n.w.ChartVersion, n.w.OCIDigest
	s.LastAttemptedConfigDigest = n.w.ConfigDigest
	s.LastAttemptedValuesChecksum = "" //nolint:staticcheck // what older engines left there would contradict
	s.LastReleaseRevision = 0          //nolint:staticcheck // the same
}

// note brings into the status what an earlier process made and did not come to tell: the
// marks prove that nobody else wrote it since.
func (n *next) note() {
	for _, r := range []*Revision{n.o.Previous, n.o.Last} {
		if r == nil || !r.Marks.Of(n.unit) || r.Snapshot == nil {
			continue
		}
		if r.Verified {
			n.noteTests(r)
			continue
		}
		s := &n.hr.Status
		known := n.snapshotOf(r)
		attempted := r.Marks.Inputs == n.w.Inputs // else it failed with what is not wanted any more
		if attempted && r == n.o.Last && r.Status == common.StatusFailed && (known == nil || known.Status != common.StatusFailed.String()) {
			n.countFailure(r.Marks.Action)
		}
		if r == n.o.Last && r.Marks.Action == v2.ReleaseActionInstall && known == nil {
			s.ClearHistory()
		}
		s.History = Note(s.History, r.Snapshot)
		n.verified(r)
	}
}

// noteTests brings in what tests gave that the status does not know of.
func (n *next) noteTests(r *Revision) {
	known := n.snapshotOf(r)
	if r != n.o.Last || known == nil || known.HasBeenTested() || r.Snapshot.TestHooks == nil || !r.Snapshot.HasBeenTested() {
		return
	}
	n.hr.Status.History = Note(n.hr.Status.History, r.Snapshot)
	remediation := n.hr.GetActiveRemediation()
	if r.Snapshot.HasTestInPhase(helmrelease.HookPhaseFailed.String()) {
		n.hr.Status.Failures++
		if remediation != nil && !remediation.MustIgnoreTestFailures(n.hr.GetTest().IgnoreFailures) {
			remediation.IncrementFailureCount(n.hr)
		}
	}
}

// verified marks the revision as told, in a copy.
func (n *next) verified(r *Revision) {
	told := *r
	told.Verified = true
	if r == n.o.Last {
		n.o.Last = &told
	} else {
		n.o.Previous = &told
	}
}

func (n *next) snapshotOf(r *Revision) *v2.Snapshot {
	for _, s := range n.hr.Status.History {
		if s.Targets(r.Snapshot.Name, r.Snapshot.Namespace, r.Version) {
			return s
		}
	}
	return nil
}

func (n *next) countFailure(action v2.ReleaseAction) {
	s := &n.hr.Status
	s.Failures++
	switch action {
	case v2.ReleaseActionInstall:
		s.LastAttemptedReleaseAction = action
		s.InstallFailures++
	case v2.ReleaseActionUpgrade:
		s.LastAttemptedReleaseAction = action
		s.UpgradeFailures++
	default:
	}
}

// pending is about a revision that somebody works on, or did.
func (n *next) pending() Decision {
	last := n.o.Last
	if last.Marks.Of(n.unit) {
		switch {
		case last.Status == common.StatusUninstalling || last.Status == common.StatusPendingRollback, last.Marks.Inputs == n.w.Inputs:
			return Decision{Step: Resume, Reason: Interrupted, Action: last.Marks.Action, Message: fmt.Sprintf("going on with revision %d, which is %s", last.Version, last.Status)}
		default:
			return Decision{Step: Unlock, Reason: Overtaken, Message: fmt.Sprintf("revision %d is overtaken by another chart, values or spec", last.Version)}
		}
	}
	// The toolkit's engine does not run beside this one. Helm's own executable may.
	left := n.hr.GetTimeout().Duration - n.o.Now.Sub(last.WrittenAt)
	if left <= 0 || last.Writer == Manager || n.forced || n.asked {
		return Decision{Step: Unlock, Reason: Locked, Message: fmt.Sprintf("revision %d was left %s", last.Version, last.Status)}
	}
	return Decision{Step: Wait, Reason: Busy, After: left, Message: fmt.Sprintf("revision %d is %s by somebody else", last.Version, last.Status)}
}
