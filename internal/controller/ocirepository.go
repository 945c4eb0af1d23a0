package controller

import (
	"context"
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
	"github.com/bowline-dev/bowline/internal/source/oci"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// ociRepositories reconciles OCIRepositories: it fetches, hands the artifact to
// those who use it, and reports.
type ociRepositories struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	events    record.EventRecorder
	clock     clock.PassiveClock
	store     *oci.Store
	artifacts *artifacts
	published *published
	attempts  *attempts
	// references is what credentials and keys are read through: a change of one enqueues
	// its sources in self.
	references *references
	self       *feed
	identity   SourceIdentity
	signatures *signatures
	registries *registry.Client
	// changed is told of every source whose artifact changed, or that says anew why it has none.
	changed func(context.Context, sourceKey)
}

func ociKey(name types.NamespacedName) sourceKey {
	return sourceKey{Kind: sourcev1.OCIRepositoryKind, NamespacedName: name}
}

// Reconcile implements reconcile.Reconciler.
func (r *ociRepositories) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	key := ociKey(req.NamespacedName)
	o := &sourcev1.OCIRepository{}
	err := r.client.Get(ctx, req.NamespacedName, o)
	if apierrors.IsNotFound(err) || err == nil && !o.DeletionTimestamp.IsZero() {
		r.drop(ctx, key)
		return ctrl.Result{}, r.letGo(ctx, o)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read %s: %w", key, err)
	}
	if o.Spec.Suspend {
		if !r.recall(ctx, key, o) && r.artifacts.fail(key, "it is suspended and has no artifact; resume it") {
			r.changed(ctx, key)
		}
		return ctrl.Result{}, nil
	}
	before := o.DeepCopy()
	artifact, fetchErr := r.fetch(ctx, o)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	r.hand(ctx, key, o, artifact, fetchErr)
	again := r.report(ctx, o, artifact, fetchErr)
	if !equality.Semantic.DeepEqual(before.Status, o.Status) {
		if err := r.client.Status().Patch(ctx, o, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// hand gives the artifact to those who use it, or has them say why there is none. It comes before the
// status is written: that may fail, and nobody waits for it.
func (r *ociRepositories) hand(ctx context.Context, key sourceKey, o *sourcev1.OCIRepository, artifact source.Artifact, err error) {
	switch {
	case err == nil:
		if r.artifacts.put(key, artifact) {
			ctrl.LoggerFrom(ctx).Info("fetched", "revision", artifact.Revision)
			r.changed(ctx, key)
		}
	case !r.recall(ctx, key, o) && r.artifacts.fail(key, err.Error()):
		r.changed(ctx, key)
	}
}

// drop forgets a source that is gone.
func (r *ociRepositories) drop(ctx context.Context, key sourceKey) {
	r.artifacts.drop(key)
	r.published.withdraw(key)
	r.attempts.forget(key.NamespacedName)
	r.references.forget(ociUser(key.NamespacedName))
	r.signatures.forget(key)
	r.store.Forget(key.String())
	r.changed(ctx, key)
}

// recall brings back the artifact that the status names from the data folder, if there is none in memory: after
// a restart, a source that is suspended or cannot be reached goes on to serve its last revision. It reports
// whether there is one then.
func (r *ociRepositories) recall(ctx context.Context, key sourceKey, o *sourcev1.OCIRepository) bool {
	if _, ok := r.artifacts.get(key); ok {
		return true
	}
	if o.Status.Artifact == nil {
		return false
	}
	artifact, err := r.store.Recall(ctx, ociRequestOf(o), o.Status.Artifact.Revision)
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("the last revision is not at hand", "revision", o.Status.Artifact.Revision, "cause", err.Error())
		return false
	}
	if r.artifacts.put(key, artifact) {
		r.changed(ctx, key)
	}
	return true
}

// letGo takes away the finalizer that the toolkit's engine leaves on its sources:
// nobody else would, and the object would never go.
func (r *ociRepositories) letGo(ctx context.Context, o *sourcev1.OCIRepository) error {
	before := o.DeepCopy()
	if !controllerutil.RemoveFinalizer(o, sourcev1.SourceFinalizer) {
		return nil
	}
	if err := client.IgnoreNotFound(r.client.Patch(ctx, o, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

// fetch brings the artifact up to date, with the credentials and keys that Secrets hold now.
func (r *ociRepositories) fetch(ctx context.Context, o *sourcev1.OCIRepository) (source.Artifact, error) {
	u := ociUser(client.ObjectKeyFromObject(o))
	r.references.begin(u)
	req, err := r.request(ctx, r.references.reader(u), o)
	r.references.end(u)
	if err != nil {
		return source.Artifact{}, err
	}
	return r.store.Fetch(ctx, req)
}

func ociUser(name types.NamespacedName) user { return user{sourcev1.OCIRepositoryKind, name} }

// report puts what a fetch came to into the status and returns when to fetch
// again. After a failure the last artifact stays.
func (r *ociRepositories) report(ctx context.Context, o *sourcev1.OCIRepository, artifact source.Artifact, err error) time.Duration {
	attempt := r.attempts.of(client.ObjectKeyFromObject(o))
	now := r.clock.Now()
	o.Status.ObservedGeneration = o.Generation
	if asked, ok := o.Annotations[meta.ReconcileRequestAnnotation]; ok {
		o.Status.LastHandledReconcileAt = asked
	}
	if err != nil {
		return r.reportFailure(o, attempt, now, err)
	}
	attempt.failures = 0
	before := o.Status.Artifact
	o.Status.Artifact = r.published.status(ctx, ociKey(client.ObjectKeyFromObject(o)), artifact, before, now)
	o.Status.URL = o.Status.Artifact.URL
	message := fmt.Sprintf("stored artifact for digest '%s'", artifact.Revision)
	if !same(before, o.Status.Artifact) {
		r.events.Event(o, corev1.EventTypeNormal, "NewArtifact", message)
	}
	o.Status.ObservedIgnore = o.Spec.Ignore
	o.Status.ObservedLayerSelector = o.Spec.LayerSelector
	reportSigned(o, "revision "+artifact.Revision, artifact.Verified)
	report.Ready(o, meta.SucceededReason, message)
	report.Stored(o, meta.SucceededReason, message)
	return jitter(max(o.Spec.Interval.Duration, shortestWait), string(o.UID))
}

func (r *ociRepositories) reportFailure(o *sourcev1.OCIRepository, a *attempt, now time.Time, err error) time.Duration {
	reason := ociReason(err)
	if c := report.Condition(o, meta.ReadyCondition); c == nil || c.Message != err.Error() {
		r.events.Event(o, corev1.EventTypeWarning, reason, clip(err.Error()))
	}
	terminal := failure.Terminal(err)
	report.Failed(o, reason, err.Error(), terminal)
	if !reportUnsigned(o, err) {
		report.FetchFailed(o, reason, err.Error())
	}
	return a.failed(now, terminal, o.Spec.Interval.Duration)
}
