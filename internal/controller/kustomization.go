package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// kustomizations reconciles Kustomizations. A reconcile never waits: what it
// waits for enqueues the unit again.
type kustomizations struct {
	*units[*kustomizev1.Kustomization]

	// unitOptions say how Kustomizations are read.
	unitOptions UnitOptions
}

// Reconcile implements reconcile.Reconciler.
func (r *kustomizations) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	defer r.targets.ran(req.NamespacedName)
	if !r.ready(ctx) {
		return ctrl.Result{}, nil
	}
	k, err := r.get(ctx, req.NamespacedName)
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(ctx, req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !k.DeletionTimestamp.IsZero() {
		return r.finalize(ctx, k)
	}
	if err := r.hold(ctx, k, kustomizev1.KustomizationFinalizer); err != nil {
		return ctrl.Result{}, err
	}
	if k.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	run := &kustomizationRun{kustomizations: r, k: k, before: k.DeepCopy(), now: r.clock.Now(), log: ctrl.LoggerFrom(ctx)}
	run.attempt = r.attempts.of(req.NamespacedName)
	reader := unitUser(req.NamespacedName)
	r.references.begin(reader)
	again := run.attempt.untilHeal(run.now, run.do(ctx))
	if run.prepared {
		r.references.end(reader)
	}
	if ctx.Err() != nil {
		return ctrl.Result{}, nil // the engine stops: what failed now says nothing
	}
	if err := run.write(ctx); err != nil {
		return ctrl.Result{}, err
	}
	// The queue would keep the priority with which the unit came this time for all times to come.
	return ctrl.Result{RequeueAfter: max(again, time.Millisecond), Priority: ptr.To(routine)}, nil
}

func unitUser(name types.NamespacedName) user {
	return user{kustomizev1.KustomizationKind, name}
}

func (r *kustomizations) forget(ctx context.Context, unit types.NamespacedName) {
	r.units.forget(ctx, unitUser(unit))
}

// kustomizationRun is one reconcile of one Kustomization.
type kustomizationRun struct {
	*kustomizations
	k       *kustomizev1.Kustomization // changed as the run goes
	before  *kustomizev1.Kustomization // as it was last written
	attempt *attempt
	target  *delivery // set once it is needed
	// prepared says that the run has read all that the unit refers to.
	prepared bool
	// secrets are values that no message may hold.
	secrets []string
	now     time.Time
	log     logr.Logger
	event   *notice
}

type notice struct{ kind, reason, message string }

// do takes the Kustomization through its steps and returns when to come back if
// nothing happens until then. Every step either goes on or has said, in the
// status, why not.
func (r *kustomizationRun) do(ctx context.Context) time.Duration {
	if reason, err := r.understood(); err != nil {
		return r.fail(reason, err)
	}
	if cycle := r.cycle(ctx, r.k); cycle != "" {
		return r.fail(report.ReasonCircularDependency, &failure.Error{Op: "order", Kind: failure.Invalid,
			Err: fmt.Errorf("dependsOn forms a cycle: %s", cycle), Remedy: "remove one of these dependencies"})
	}
	artifact, ok := r.artifacts.get(sourceOf(r.k))
	if !ok {
		message, passing := r.artifacts.missing(ctx, r.client, sourceOf(r.k), "spec.sourceRef")
		return r.wait(meta.ArtifactFailedReason, message, passing)
	}
	if waitsFor, passing := r.dependency(ctx); waitsFor != "" {
		return r.wait(meta.DependencyNotReadyReason, waitsFor, passing)
	}
	r.attempt.blockedSince = time.Time{}
	unit, err := r.prepare(ctx, r.k)
	r.prepared = true
	if err != nil {
		return r.fail(meta.BuildFailedReason, err)
	}
	unit.Neighbours = r.neighbours
	r.secrets = unit.Secrets
	drifted := r.attempts.takeDrift(unit.Name)
	if inputs := r.inputs(unit, artifact); r.attempt.inputs != inputs {
		r.attempt.begin(inputs, r.now)
	} else if r.attempts.helped(r.attempt) {
		r.attempt.retry()
	} else if left := r.attempt.barred(r.now); left > 0 && !drifted && !r.attempt.late && !r.attempt.stuck {
		return left
	}
	r.attempt.cameBy = r.attempts.cameBy()
	return r.reach(ctx, unit, artifact, drifted)
}

// reach finds the cluster that the unit is delivered to, and delivers it.
func (r *kustomizationRun) reach(ctx context.Context, unit pipeline.Unit, artifact source.Artifact, drifted bool) time.Duration {
	var err error
	if r.target, err = r.targets.of(ctx, addressOf(r.k)); errors.Is(err, errConnecting) {
		return r.wait(meta.ProgressingReason, err.Error(), true)
	} else if err != nil {
		return r.fail(meta.ReconciliationFailedReason, err)
	}
	if s := r.target.access.station; r.attempt.station != s {
		r.attempt.station, r.attempt.due, r.attempt.mayRead = s, true, ""
	}
	leave, ok := r.targets.enter(r.target, unit.Name) //nolint:contextcheck // it ends with leave
	if !ok {
		if drifted {
			r.attempts.drift(unit.Name) // for when it is let in
		}
		return placeComes
	}
	defer leave()
	if r.attempt.due || r.attempt.failures > 0 {
		if err := r.targets.accountExists(ctx, r.target); err != nil {
			return r.failThere(meta.ReconciliationFailedReason, err)
		}
	}
	if err := r.target.ledger.Judge(ctx, unit.Name, r.wording.of(r.k).health); err != nil {
		return r.failThere(meta.HealthCheckFailedReason, err)
	}
	unit.Recheck = r.attempt.due || r.attempt.recheck(r.now, r.k.Spec.Interval.Duration)
	return r.deliver(ctx, unit, artifact)
}

// failThere reports what failed on the cluster. Of one that does not answer it says
// just that, however many requests that ended.
func (r *kustomizationRun) failThere(reason string, err error) time.Duration {
	if why := r.target.turnedAway(client.ObjectKeyFromObject(r.k)); why != nil {
		return r.fail(meta.ReconciliationFailedReason, why)
	}
	return r.fail(reason, err)
}

// understood says what in the Kustomization itself cannot be acted on, before anything
// is looked up.
func (r *kustomizationRun) understood() (reason string, err error) {
	if err := supported(r.k); err != nil {
		return report.ReasonNotSupported, err
	}
	if err := r.tenancy.Admit(r.k); err != nil {
		return acl.AccessDeniedReason, err
	}
	return meta.InvalidCELExpressionReason, r.wording.of(r.k).err
}

// prepare reads a Kustomization as a unit, with all that its build needs besides
// the source. It is the same for the unit itself, for its neighbours and for audits.
func (r *kustomizations) prepare(ctx context.Context, k *kustomizev1.Kustomization) (pipeline.Unit, error) {
	return r.prepareFor(ctx, client.ObjectKeyFromObject(k), k)
}

// prepareFor does so in the name of a unit, which is woken when what was read changes.
func (r *kustomizations) prepareFor(ctx context.Context, reader types.NamespacedName, k *kustomizev1.Kustomization) (pipeline.Unit, error) {
	if err := r.tenancy.Admit(k); err != nil {
		return pipeline.Unit{Name: client.ObjectKeyFromObject(k)}, err
	}
	return Prepare(ctx, r.references.reader(unitUser(reader)), k, r.unitOptions)
}

// deliver runs the pipeline and reports what came of it.
func (r *kustomizationRun) deliver(ctx context.Context, unit pipeline.Unit, artifact source.Artifact) time.Duration {
	r.k.Status.LastAttemptedRevision = artifact.Revision
	timed, cancel := context.WithTimeout(ctx, r.k.GetTimeout())
	defer cancel()
	out, err := r.pipeline.Run(timed, unit, r.target.scoped(timed, unit.Name), artifact, func(ctx context.Context, entries []plan.Entry) error {
		return r.intend(ctx, artifact, entries)
	})
	r.attempt.due = false
	r.keep(out)
	if words := r.attempt.contest(out.Plan, r.now); words != "" {
		r.events.Event(r.k, corev1.EventTypeWarning, report.ReasonDriftContested, clip(words))
	}
	err = unit.Conceal(err)
	if err != nil && out.Changes.Pending() {
		return r.pending(artifact, err)
	}
	r.attempt.pendingSince, r.attempt.stuck = time.Time{}, false
	if err != nil {
		return r.failThere(reasonOf(err), r.tenancy.explain(addressOf(r.k), err))
	}
	if unit.Recheck {
		r.attempt.checked = r.now
	}
	if len(out.Plan.Held) > 0 {
		held := errors.New(report.Held("kustomization", r.k.Name, r.k.Namespace, out.Plan))
		return r.fail(report.ReasonApprovalRequired, &failure.Error{Kind: failure.NeedsApproval, Err: held})
	}
	return r.assess(ctx, unit, artifact, out)
}

// keep takes what a run did into the status and the event.
func (r *kustomizationRun) keep(out pipeline.Outcome) {
	if out.Plan == nil {
		return
	}
	r.references.wrote(touched(out.Changes))
	r.held.note(unitUser(client.ObjectKeyFromObject(r.k)), out.Plan)
	r.setInventory(out.Inventory)
	if words := report.Changes(out.Changes); words != "" {
		r.attempt.changed = true
		r.attempt.changes = lastFew(append(r.attempt.changes, words))
		r.log.Info("applied", "revision", r.k.Status.LastAttemptedRevision, "changes", words)
	}
}

// touched returns the objects that a run changed, or may have changed.
func touched(changes apply.ChangeSet) []object.ID {
	var ids []object.ID
	for _, c := range changes {
		if c.Applies() || c.Verb == plan.Delete {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// setInventory replaces what the status says is delivered. Entries that could not
// be read stay: what they name may be on the cluster.
func (r *kustomizationRun) setInventory(entries []plan.Entry) {
	_, unreadable := report.Entries(r.k.Status.Inventory)
	r.k.Status.Inventory = report.Inventory(entries)
	r.k.Status.Inventory.Entries = append(r.k.Status.Inventory.Entries, unreadable...)
}

// lastFew bounds what is remembered of a unit that changes and never succeeds.
func lastFew(changes []string) []string { return changes[max(0, len(changes)-5):] }

// intend writes the grown inventory before anything is applied.
func (r *kustomizationRun) intend(ctx context.Context, artifact source.Artifact, entries []plan.Entry) error {
	r.setInventory(entries)
	report.Progressing(r.k, meta.ProgressingReason, "Applying revision "+artifact.Revision)
	return r.write(ctx)
}

// inputs identifies everything that a failed attempt depends on.
func (r *kustomizationRun) inputs(u pipeline.Unit, a source.Artifact) string {
	return fmt.Sprintf("%d %s %s %s %s %s", r.k.Generation, u.Recipe.Digest(), a.Revision, a.Digest,
		r.k.Annotations[meta.ReconcileRequestAnnotation], r.k.Annotations[AnnotationApprovedPlan])
}

func reasonOf(err error) string {
	var stage *pipeline.StageError
	if !errors.As(err, &stage) {
		return meta.ReconciliationFailedReason
	}
	switch stage.Stage {
	case pipeline.Build:
		return meta.BuildFailedReason
	case pipeline.Prune:
		return meta.PruneFailedReason
	default:
		return meta.ReconciliationFailedReason
	}
}
