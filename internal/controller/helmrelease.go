package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
)

// HelmFieldManager is the field manager of everything that HelmReleases deliver: the
// toolkit's own.
const HelmFieldManager = "helm-controller"

// helmReleases reconciles HelmReleases: the ring around the pipeline that knows of
// revisions, hooks, tests and remediation. As with Kustomizations a reconcile never waits;
// docs/design/helm.md has the decisions.
type helmReleases struct {
	*units[*helmv2.HelmRelease]

	charts   *chartTemplates
	parsed   *parsedCharts
	memories *releaseMemories
	storages *storages
	renders  renders
	// rendered counts the charts that are rendered.
	rendered prometheus.Counter

	budget plan.Budget
}

// Reconcile implements reconcile.Reconciler.
func (r *helmReleases) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	defer r.targets.ran(req.NamespacedName)
	if !r.ready(ctx) {
		return ctrl.Result{}, nil
	}
	h, err := r.get(ctx, req.NamespacedName)
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(ctx, req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !h.DeletionTimestamp.IsZero() {
		return r.runOf(ctx, h).finalize(ctx)
	}
	if err := r.hold(ctx, h, helmv2.HelmReleaseFinalizer); err != nil {
		return ctrl.Result{}, err
	}
	if h.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	run, reader := r.runOf(ctx, h), releaseUser(req.NamespacedName)
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
	return ctrl.Result{RequeueAfter: max(again, time.Millisecond), Priority: ptr.To(routine)}, nil
}

func releaseUser(name types.NamespacedName) user { return user{helmv2.HelmReleaseKind, name} }

func (r *helmReleases) forget(ctx context.Context, unit types.NamespacedName) {
	r.units.forget(ctx, releaseUser(unit))
	r.parsed.forget(unit)
	r.memories.forget(unit)
	r.storages.forget(unit)
}

// helmReleaseRun is one reconcile of one HelmRelease.
type helmReleaseRun struct {
	*helmReleases
	h       *helmv2.HelmRelease // changed as the run goes
	before  *helmv2.HelmRelease // as it was last written
	attempt *attempt
	memory  *releaseMemory
	target  *delivery // set once it is needed
	// wanted is what is to be released, set once it is known.
	wanted *wanted
	// prepared says that the run has read all that the unit refers to.
	prepared bool
	// secrets are values that no message may hold.
	secrets []string
	now     time.Time
	log     logr.Logger
	notices []notice
	// quiet keeps the status from being written: nothing is over yet, and most waits are
	// within a moment. concluded says that something is.
	quiet, concluded bool
}

func (r *helmReleases) runOf(ctx context.Context, h *helmv2.HelmRelease) *helmReleaseRun {
	name := client.ObjectKeyFromObject(h)
	return &helmReleaseRun{
		helmReleases: r, h: h, before: h.DeepCopy(), attempt: r.attempts.of(name), memory: r.memories.of(name),
		now: r.clock.Now(), log: ctrl.LoggerFrom(ctx),
	}
}

func (r *helmReleaseRun) unit() types.NamespacedName { return client.ObjectKeyFromObject(r.h) }

// do takes the HelmRelease through its steps and returns when to come back if
// nothing happens until then. Every step either goes on or has said, in the
// status, why not.
func (r *helmReleaseRun) do(ctx context.Context) time.Duration {
	if reason, err := r.understood(); err != nil {
		return r.fail(reason, err)
	}
	if cycle := r.cycle(ctx, r.h); cycle != "" {
		return r.fail(report.ReasonCircularDependency, &failure.Error{Op: "order", Kind: failure.Invalid,
			Err: fmt.Errorf("dependsOn forms a cycle: %s", cycle), Remedy: "remove one of these dependencies"})
	}
	if err := r.template(ctx); err != nil {
		return r.fail(helmv2.ArtifactFailedReason, err)
	}
	if waitsFor, passing := r.dependency(ctx, r.h, func(*helmv2.HelmRelease) string { return "" }); waitsFor != "" {
		return r.wait(helmv2.DependencyNotReadyReason, waitsFor, passing)
	}
	key, field := chartOf(r.h)
	artifact, ok := r.artifacts.get(key)
	if !ok {
		message, passing := r.artifacts.missing(ctx, r.client, key, field)
		if r.chartUnseen(ctx, key) {
			message, passing = fmt.Sprintf("%s '%s' has no artifact yet", key.Kind, key.NamespacedName), true
		}
		return r.wait(reasonSourceNotReady, message, passing)
	}
	r.attempt.blockedSince = time.Time{}
	reason, err := r.prepare(ctx, key, artifact)
	r.prepared = true
	if err != nil {
		return r.fail(reason, err)
	}
	drifted := r.attempts.takeDrift(r.unit())
	if inputs := r.inputs(); r.attempt.inputs != inputs {
		r.attempt.begin(inputs, r.now)
	} else if r.attempts.helped(r.attempt) {
		r.attempt.retry()
	} else if left := r.attempt.barred(r.now); left > 0 && !drifted && !r.attempt.stuck {
		return left
	}
	r.attempt.cameBy = r.attempts.cameBy()
	return r.reach(ctx, drifted)
}

// reach finds the cluster that the release is on, and works there.
func (r *helmReleaseRun) reach(ctx context.Context, drifted bool) time.Duration {
	var err error
	if r.target, err = r.targets.of(ctx, addressOfRelease(r.h)); errors.Is(err, errConnecting) {
		return r.wait(meta.ProgressingReason, err.Error(), true)
	} else if err != nil {
		return r.fail(meta.ReconciliationFailedReason, err)
	}
	if s := r.target.access.station; r.attempt.station != s {
		r.attempt.station, r.attempt.due, r.attempt.mayRead = s, true, ""
	}
	leave, ok := r.targets.enter(r.target, r.unit()) //nolint:contextcheck // it ends with leave
	if !ok {
		if drifted {
			r.attempts.drift(r.unit()) // for when it is let in
		}
		return placeComes
	}
	defer leave()
	if r.attempt.due || r.attempt.failures > 0 {
		if err := r.targets.accountExists(ctx, r.target); err != nil {
			return r.failThere(meta.ReconciliationFailedReason, err)
		}
	}
	if err := r.target.ledger.Judge(ctx, r.unit(), r.wording.of(r.h).health); err != nil {
		return r.failThere(meta.HealthCheckFailedReason, err)
	}
	return r.advance(ctx)
}

// understood says what in the HelmRelease itself cannot be acted on, before anything
// is looked up.
func (r *helmReleaseRun) understood() (reason string, err error) {
	if err := r.tenancy.AdmitRelease(r.h); err != nil {
		return acl.AccessDeniedReason, err
	}
	return meta.InvalidCELExpressionReason, r.wording.of(r.h).err
}

// inputs identifies everything that a failed attempt depends on.
func (r *helmReleaseRun) inputs() string {
	return fmt.Sprintf("%d %s %s %s %v", r.h.Generation, r.wanted.digest, r.h.Annotations[meta.ReconcileRequestAnnotation],
		r.h.Annotations[AnnotationApprovedPlan], takesOwnership(r.h))
}
