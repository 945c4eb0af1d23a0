package controller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// gitRepositories reconciles GitRepositories: it fetches, hands the artifact to
// those who use it, and reports.
type gitRepositories struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	events    record.EventRecorder
	clock     clock.PassiveClock
	store     *git.Store
	artifacts *artifacts
	published *published
	attempts  *attempts
	// references is what credentials are read through: a change of one enqueues
	// its sources in self.
	references *references
	self       *feed
	identity   SourceIdentity
	// changed is told of every source whose artifact changed.
	changed func(context.Context, sourceKey)
}

// Reconcile implements reconcile.Reconciler.
func (r *gitRepositories) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	key := sourceKey{Kind: sourcev1.GitRepositoryKind, NamespacedName: req.NamespacedName}
	g := &sourcev1.GitRepository{}
	err := r.client.Get(ctx, req.NamespacedName, g)
	if apierrors.IsNotFound(err) || err == nil && !g.DeletionTimestamp.IsZero() {
		r.artifacts.drop(key)
		r.published.withdraw(key)
		r.attempts.forget(req.NamespacedName)
		r.references.forget(gitUser(req.NamespacedName))
		r.tell(ctx, key)
		return ctrl.Result{}, r.letGo(ctx, g)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read GitRepository %s: %w", req.NamespacedName, err)
	}
	if g.Spec.Suspend {
		r.recall(ctx, key, g)
		return ctrl.Result{}, nil
	}
	before := g.DeepCopy()
	artifact, included, fetchErr := r.fetch(ctx, g)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	if fetchErr != nil {
		r.recall(ctx, key, g)
	} else if r.artifacts.put(key, artifact) {
		// Before the status is written: that may fail, and nobody waits for it.
		ctrl.LoggerFrom(ctx).Info("fetched", "revision", artifact.Revision)
		r.tell(ctx, key)
	}
	again := r.report(ctx, g, artifact, included, fetchErr)
	if !equality.Semantic.DeepEqual(before.Status, g.Status) {
		if err := r.client.Status().Patch(ctx, g, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// recall brings back the artifact that the status names from the data folder, if
// there is none in memory: after a restart, a source that is suspended or cannot be
// reached goes on to serve its last revision.
func (r *gitRepositories) recall(ctx context.Context, key sourceKey, g *sourcev1.GitRepository) {
	if _, ok := r.artifacts.get(key); ok || g.Status.Artifact == nil {
		return
	}
	artifact, err := r.recalled(ctx, g)
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("the last revision is not at hand", "revision", g.Status.Artifact.Revision, "cause", err.Error())
		return
	}
	r.artifacts.put(key, artifact)
	r.tell(ctx, key)
}

func (r *gitRepositories) recalled(ctx context.Context, g *sourcev1.GitRepository) (source.Artifact, error) {
	included, err := r.inclusions(ctx, g)
	if err != nil {
		return source.Artifact{}, err
	}
	if !r.sameInclusions(ctx, g, included) {
		return source.Artifact{}, errors.New("what it includes has changed")
	}
	artifact, err := r.store.Recall(ctx, requestOf(g), g.Status.Artifact.Revision)
	if err != nil {
		return source.Artifact{}, err
	}
	return include(g, artifact, included)
}

// letGo takes away the finalizer that the toolkit's engine leaves on its sources:
// nobody else would, and the object would never go.
func (r *gitRepositories) letGo(ctx context.Context, g *sourcev1.GitRepository) error {
	before := g.DeepCopy()
	if !controllerutil.RemoveFinalizer(g, sourcev1.SourceFinalizer) {
		return nil
	}
	if err := client.IgnoreNotFound(r.client.Patch(ctx, g, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

// fetch brings the repository up to date, with the credentials that its
// Secrets hold now, and adds what it includes.
func (r *gitRepositories) fetch(ctx context.Context, g *sourcev1.GitRepository) (source.Artifact, []inclusion, error) {
	u := gitUser(client.ObjectKeyFromObject(g))
	r.references.begin(u)
	req, err := RequestOf(ctx, r.references.reader(u), r.identity, g)
	r.references.end(u)
	if err != nil {
		return source.Artifact{}, nil, err
	}
	included, err := r.inclusions(ctx, g)
	if err != nil {
		return source.Artifact{}, nil, err
	}
	artifact, err := r.store.Fetch(ctx, req)
	if err != nil {
		return source.Artifact{}, nil, err
	}
	artifact, err = include(g, artifact, included)
	return artifact, included, err
}

func gitUser(name types.NamespacedName) user {
	return user{sourcev1.GitRepositoryKind, name}
}

// report puts what a fetch came to into the status and returns when to fetch
// again. After a failure the last artifact stays.
func (r *gitRepositories) report(ctx context.Context, g *sourcev1.GitRepository, artifact source.Artifact, included []inclusion, err error) time.Duration {
	attempt := r.attempts.of(client.ObjectKeyFromObject(g))
	now := r.clock.Now()
	g.Status.ObservedGeneration = g.Generation
	if asked, ok := g.Annotations[meta.ReconcileRequestAnnotation]; ok {
		g.Status.LastHandledReconcileAt = asked
	}
	if err != nil {
		return r.reportFailure(g, attempt, now, err)
	}
	attempt.failures = 0
	before := g.Status.Artifact
	g.Status.Artifact = r.published.status(ctx, repositoryKey(g.Namespace, g.Name), artifact, before, now)
	if !same(before, g.Status.Artifact) {
		r.events.Eventf(g, corev1.EventTypeNormal, "NewArtifact", "stored artifact for revision '%s'", artifact.Revision)
	}
	g.Status.ObservedIgnore = g.Spec.Ignore
	g.Status.ObservedSparseCheckout = g.Spec.SparseCheckout
	g.Status.ObservedRecurseSubmodules = g.Spec.RecurseSubmodules
	r.reportIncluded(ctx, g, included)
	reportVerified(g, artifact.Verified)
	report.Ready(g, meta.SucceededReason, fmt.Sprintf("stored artifact for revision '%s'", artifact.Revision))
	report.Stored(g, meta.SucceededReason, fmt.Sprintf("stored artifact for revision '%s'", artifact.Revision))
	return jitter(max(g.Spec.Interval.Duration, shortestWait), string(g.UID))
}

func (r *gitRepositories) reportFailure(g *sourcev1.GitRepository, a *attempt, now time.Time, err error) time.Duration {
	reason := gitReason(err)
	if c := report.Condition(g, meta.ReadyCondition); c == nil || c.Message != err.Error() {
		r.events.Event(g, corev1.EventTypeWarning, reason, clip(err.Error()))
	}
	terminal := failure.Terminal(err)
	report.Failed(g, reason, err.Error(), terminal)
	reportFetchFailure(g, reason, err)
	return a.failed(now, terminal, g.Spec.Interval.Duration)
}

// gitReason returns the reason that the toolkit's users know.
func gitReason(err error) string {
	var unverified *git.UnverifiedError
	var notIncluded *includeError
	var provider *providerError
	switch {
	case errors.As(err, &provider):
		return sourcev1.InvalidProviderConfigurationReason
	case errors.As(err, &notIncluded):
		return notIncluded.reason
	case errors.As(err, &unverified):
		return unverified.Reason
	case errors.Is(err, failure.Of(failure.Unsupported)):
		return report.ReasonNotSupported
	case errors.Is(err, failure.Of(failure.Denied)):
		return sourcev1.AuthenticationFailedReason
	default:
		return sourcev1.GitOperationFailedReason
	}
}
