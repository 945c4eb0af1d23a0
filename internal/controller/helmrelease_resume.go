package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// begin renders the next revision, records it as pending, and goes on with it.
func (r *helmReleaseRun) begin(ctx context.Context, action helmv2.ReleaseAction, reason release.Reason) stepped {
	r.h.Status.LastAttemptedReleaseAction = action
	record, err := r.make(ctx, action)
	if err != nil {
		return comeBack(r.notReleased(err))
	}
	if action == helmv2.ReleaseActionUpgrade && reason == release.Unmanaged {
		if err := r.inherit(ctx, record.Release); err != nil {
			return comeBack(r.failThere(reasonStateError, err))
		}
	}
	return r.start(ctx, record)
}

// start records a revision as pending and goes on with it.
func (r *helmReleaseRun) start(ctx context.Context, record *release.Record) stepped {
	m := r.memory
	// Helm's own executable would refuse to roll back what it takes for applied
	// server-side by somebody else; it then patches instead.
	record.ApplyMethod = string(helmrelease.ApplyMethodClientSideApply)
	if err := m.store.Create(ctx, record, r.h.GetMaxHistory()); err != nil {
		return comeBack(r.notReleased(r.there(err)))
	}
	m.record, m.began, m.waitingSince, m.known = record, r.now, time.Time{}, false
	m.definitions, m.defined, m.owned, m.housed, m.outcome = nil, false, false, false, pipeline.Outcome{}
	return r.resume(ctx)
}

// resume goes on with the revision that is under way. It is the same for one that was just
// recorded and for one that an earlier process left: everything that is done already
// is found done.
func (r *helmReleaseRun) resume(ctx context.Context) stepped {
	m := r.memory
	if m.record.Info.Status == common.StatusUninstalling {
		return r.uninstall(ctx, m.record.Marks.Action, r.h.Status.History.Latest(), r.h.Status.StorageNamespace)
	}
	if m.began.IsZero() {
		m.began = r.now
	}
	r.underWay()
	if m.record.Marks.Action == helmv2.ReleaseActionUpgrade && r.h.GetUpgrade().PreserveValues {
		r.secrets = append(slices.Clone(r.secrets), r.wanted.values.Beyond(m.record.Config)...)
	}
	for _, stage := range []func(context.Context) (stepped, error){
		r.house, r.owned, r.definitions, r.preHooks, r.deliver, r.healthy, r.postHooks,
	} {
		done, err := stage(ctx)
		if err != nil && r.endures(err) {
			return comeBack(r.failThere(meta.ReconciliationFailedReason, err))
		}
		if err != nil {
			return r.end(ctx, err)
		}
		if !done.more {
			return done
		}
	}
	return r.end(ctx, nil)
}

// underWay notes in the status what is being done.
func (r *helmReleaseRun) underWay() {
	action := r.memory.record.Marks.Action
	if action == helmv2.ReleaseActionInstall || action == helmv2.ReleaseActionUpgrade {
		r.h.Status.LastAttemptedReleaseAction = action
		report.Unmark(r.h, helmv2.TestSuccessCondition, helmv2.RemediatedCondition)
	}
	if action == helmv2.ReleaseActionInstall {
		r.h.Status.ClearHistory()
	}
}

// endures reports whether the revision is to be gone on with after this error: the
// cluster does not answer, and the time for the step is not over.
func (r *helmReleaseRun) endures(err error) bool {
	return transient(err) && r.now.Sub(r.memory.began) < r.timeoutOf(r.memory.record.Marks.Action)
}

// deliver sends the objects of the revision.
func (r *helmReleaseRun) deliver(ctx context.Context) (stepped, error) {
	record := r.memory.record
	unit, definitions, err := r.unitOfRecord(ctx, record)
	if err != nil {
		return stepped{}, err
	}
	out, err := r.send(ctx, unit, r.timeoutOf(record.Marks.Action))
	r.keep(out, definitions)
	r.memory.outcome = out
	switch {
	case err != nil && out.Changes.Pending():
		return r.waitIn("Applying: "+err.Error(), r.memory.began, err)
	case err != nil:
		return stepped{}, r.withoutDefinitions(r.there(err))
	case len(out.Plan.Held) > 0:
		held := errors.New(report.Held("helmrelease", r.h.Name, r.h.Namespace, out.Plan))
		return comeBack(r.fail(report.ReasonApprovalRequired, &failure.Error{Kind: failure.NeedsApproval, Err: held})), nil
	}
	return goOn(), nil
}

// withoutDefinitions says of a kind that is not served which field leaves out the definitions that
// come with the chart.
func (r *helmReleaseRun) withoutDefinitions(err error) error {
	record := r.memory.record
	action := record.Marks.Action
	if !errors.Is(err, kube.ErrUnknownKind) || action == helmv2.ReleaseActionRollback || r.policyOfDefinitions(action) != helmv2.Skip {
		return err
	}
	if own, failed := r.definitionsOf(record); failed != nil || len(own) == 0 {
		return err
	}
	return fmt.Errorf("%w; the chart's own definitions are installed only where spec.%s.crds is Create or CreateReplace", err, action)
}

// unitOfRecord is what the pipeline delivers of a revision when it is released, with the
// definitions that stay for ever.
func (r *helmReleaseRun) unitOfRecord(ctx context.Context, record *release.Record) (unit pipeline.Unit, definitions []plan.Entry, err error) {
	have, definitions, err := r.inventoryFor(ctx, record.Release)
	if err != nil {
		return unit, nil, err
	}
	unit, err = r.unitOf(record.Version, release.ManifestDigest(record.Release), have, func(context.Context) (*release.Release, error) { return record.Release, nil })
	if err != nil {
		return unit, nil, err
	}
	unit.Policy.HealsAll = true
	if r.policyOfDefinitions(record.Marks.Action) != helmv2.Skip {
		own, err := r.definitionsOf(record)
		if err != nil {
			return unit, nil, err
		}
		definitions = withDefinitions(definitions, own)
	}
	return unit, definitions, nil
}

// send runs the pipeline for a unit. The status need not name new objects before they are
// applied: the release storage does, as the pending revision was written before.
func (r *helmReleaseRun) send(ctx context.Context, unit pipeline.Unit, timeout time.Duration) (pipeline.Outcome, error) {
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	recorded := func(context.Context, []plan.Entry) error { return nil }
	out, err := r.pipeline.Run(timed, unit, r.target.scoped(timed, unit.Name), source.Artifact{Digest: unit.Made.Digest}, recorded)
	return out, unit.Conceal(err)
}

// withDefinitions adds the definitions that a chart installs.
func withDefinitions(entries []plan.Entry, objects []*unstructured.Unstructured) []plan.Entry {
	for _, o := range objects {
		if id := object.IDOf(o); o.GetKind() == definitionKind && !slices.ContainsFunc(entries, func(e plan.Entry) bool { return e.ID == id }) {
			entries = append(entries, plan.Entry{ID: id, Version: o.GroupVersionKind().Version})
		}
	}
	return entries
}

// keep takes what a run did into the status. Definitions are listed with the rest.
func (r *helmReleaseRun) keep(out pipeline.Outcome, definitions []plan.Entry) {
	if out.Plan == nil {
		return
	}
	r.references.wrote(touched(out.Changes))
	r.held.note(releaseUser(client.ObjectKeyFromObject(r.h)), out.Plan)
	all := slices.Clone(out.Inventory)
	for _, d := range definitions {
		if !slices.ContainsFunc(all, func(e plan.Entry) bool { return e.ID == d.ID }) {
			all = append(all, d)
		}
	}
	r.h.Status.Inventory = releaseInventory(all)
	if words := report.Changes(out.Changes); words != "" {
		r.attempt.changes = lastFew(append(r.attempt.changes, words))
		r.log.Info("applied", "chart", r.h.Status.LastAttemptedRevision, "changes", words)
	}
}

// house makes the namespace of the release, where that is asked for.
func (r *helmReleaseRun) house(ctx context.Context) (stepped, error) {
	m := r.memory
	if m.housed || m.record.Marks.Action != helmv2.ReleaseActionInstall || !r.h.GetInstall().CreateNamespace {
		return goOn(), nil
	}
	name := m.record.Namespace
	namespaces := corev1.SchemeGroupVersion.WithResource("namespaces")
	_, err := r.target.Cluster.Metadata.Resource(namespaces).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
		_, err = r.target.Cluster.Dynamic.Resource(namespaces).Create(ctx, ns, metav1.CreateOptions{FieldManager: HelmFieldManager})
	}
	switch {
	case err == nil || apierrors.IsAlreadyExists(err):
		m.housed = true
		return goOn(), nil
	case apierrors.IsForbidden(err):
		return stepped{}, r.there(&failure.Error{Op: "create", Kind: failure.Denied, Object: "Namespace/" + name, Err: err})
	default:
		return stepped{}, &failure.Error{Op: "create", Kind: failure.Unavailable, Object: "Namespace/" + name, Err: err}
	}
}

// healthy waits until the objects of the revision are healthy, if that is asked for.
func (r *helmReleaseRun) healthy(ctx context.Context) (stepped, error) {
	m := r.memory
	ids, versions := r.awaited(m.record.Marks.Action, m.outcome.Wants)
	if len(ids) == 0 {
		return goOn(), nil
	}
	h := r.target.ledger.Health(r.unit(), ids)
	if h.Ready() {
		return goOn(), nil
	}
	if m.waitingSince.IsZero() {
		m.waitingSince = r.now
	}
	waited, timeout := r.now.Sub(m.waitingSince), r.timeoutOf(m.record.Marks.Action)
	if len(h.Failed) > 0 || waited >= timeout {
		return stepped{}, fmt.Errorf("health check failed after %s: %s", waited.Round(time.Second), r.target.explainAll(ctx, h, versions))
	}
	if waited < tellAfter {
		r.quiet = true
		return comeBack(tellAfter - waited), nil
	}
	return comeBack(r.progress("Waiting for health: "+r.target.explainAll(ctx, h, versions), timeout-waited)), nil
}

// awaited returns the objects whose health an action waits for.
func (r *helmReleaseRun) awaited(action helmv2.ReleaseAction, wants []plan.Want) ([]object.ID, map[object.ID]string) {
	var noWait, noJobs bool
	switch action {
	case helmv2.ReleaseActionInstall:
		noWait, noJobs = r.h.GetInstall().DisableWait, r.h.GetInstall().DisableWaitForJobs
	case helmv2.ReleaseActionRollback:
		noWait, noJobs = r.h.GetRollback().DisableWait, r.h.GetRollback().DisableWaitForJobs
	default:
		noWait, noJobs = r.h.GetUpgrade().DisableWait, r.h.GetUpgrade().DisableWaitForJobs
	}
	if noWait {
		return nil, nil
	}
	var ids []object.ID
	for _, w := range wants {
		if noJobs && w.ID.Group == "batch" && w.ID.Kind == "Job" {
			continue
		}
		ids = append(ids, w.ID)
	}
	return ids, versionsOf(wants, nil)
}

// waitIn waits, in a step, for what an event will make possible, until the time for the
// step is over.
func (r *helmReleaseRun) waitIn(message string, since time.Time, cause error) (stepped, error) {
	elapsed, timeout := r.now.Sub(since), r.timeoutOf(r.memory.record.Marks.Action)
	if elapsed >= timeout {
		return stepped{}, &failure.Error{Op: "wait", Kind: failure.Timeout, Err: fmt.Errorf("still waiting after %s: %w", timeout, cause),
			Remedy: "see what holds it up, or raise the timeout"}
	}
	look := min(max(time.Second, elapsed), timeout-elapsed)
	if elapsed < tellAfter {
		r.quiet = true
		return comeBack(min(look, tellAfter-elapsed)), nil
	}
	return comeBack(r.progress(message, look)), nil
}

// progress tells of a step that lasts.
func (r *helmReleaseRun) progress(message string, again time.Duration) time.Duration {
	r.attempt.retry() // the event that is waited for must not find it barred
	m := r.memory
	running := fmt.Sprintf("Running '%s' action with timeout of %s", m.record.Marks.Action, r.timeoutOf(m.record.Marks.Action))
	report.Mark(r.h, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingReason, object.Conceal(running+": "+message, r.secrets))
	report.Mark(r.h, meta.ReadyCondition, metav1.ConditionUnknown, meta.ProgressingReason, running)
	report.Unmark(r.h, meta.StalledCondition)
	return again
}
