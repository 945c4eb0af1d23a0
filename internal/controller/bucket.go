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
	"github.com/bowline-dev/bowline/internal/source/bucket"
)

// buckets reconciles Buckets: it fetches, hands the artifact to those who use it, and reports.
type buckets struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	events    record.EventRecorder
	clock     clock.PassiveClock
	store     *bucket.Store
	artifacts *artifacts
	published *published
	attempts  *attempts
	// references is what credentials are read through: a change of one enqueues
	// its buckets in self.
	references *references
	self       *feed
	identity   SourceIdentity
	// changed is told of every bucket whose artifact changed.
	changed func(context.Context, sourceKey)
}

func bucketKey(name types.NamespacedName) sourceKey {
	return sourceKey{Kind: sourcev1.BucketKind, NamespacedName: name}
}

func bucketUser(name types.NamespacedName) user { return user{sourcev1.BucketKind, name} }

// Reconcile implements reconcile.Reconciler.
func (r *buckets) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	key := bucketKey(req.NamespacedName)
	b := &sourcev1.Bucket{}
	err := r.client.Get(ctx, req.NamespacedName, b)
	if apierrors.IsNotFound(err) || err == nil && !b.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.gone(ctx, key, b)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read Bucket %s: %w", req.NamespacedName, err)
	}
	r.note(req.NamespacedName, b.UID)
	if b.Spec.Suspend {
		r.recall(ctx, key, b)
		return ctrl.Result{}, nil
	}
	before := b.DeepCopy()
	artifact, fetchErr := r.fetch(ctx, b)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	if fetchErr != nil {
		r.recall(ctx, key, b)
	} else if r.artifacts.put(key, artifact) {
		// Before the status is written: that may fail, and nobody waits for it.
		ctrl.LoggerFrom(ctx).Info("fetched", "revision", artifact.Revision)
		r.changed(ctx, key)
	}
	again := r.report(ctx, b, artifact, fetchErr)
	if !equality.Semantic.DeepEqual(before.Status, b.Status) {
		if err := r.client.Status().Patch(ctx, b, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// note remembers whose data is to go with a Bucket, which cannot be asked any more then.
func (r *buckets) note(name types.NamespacedName, uid types.UID) {
	a := r.attempts.of(name)
	if a.inputs != "" && a.inputs != string(uid) {
		r.store.Forget(a.inputs) // it was made anew
	}
	a.inputs = string(uid)
}

// gone lets go of a Bucket that is deleted, and takes away the finalizer that the toolkit's engine
// leaves on its sources: nobody else would, and the object would never go.
func (r *buckets) gone(ctx context.Context, key sourceKey, b *sourcev1.Bucket) error {
	if uid := r.attempts.of(key.NamespacedName).inputs; uid != "" {
		r.store.Forget(uid)
	}
	r.artifacts.drop(key)
	r.published.withdraw(key)
	r.attempts.forget(key.NamespacedName)
	r.references.forget(bucketUser(key.NamespacedName))
	r.changed(ctx, key)
	before := b.DeepCopy()
	if !controllerutil.RemoveFinalizer(b, sourcev1.SourceFinalizer) {
		return nil
	}
	if err := client.IgnoreNotFound(r.client.Patch(ctx, b, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

// recall brings back the artifact that the status names from the data folder, if
// there is none in memory: after a restart, a bucket that is suspended or cannot be
// reached goes on to serve its last revision.
func (r *buckets) recall(ctx context.Context, key sourceKey, b *sourcev1.Bucket) {
	if _, ok := r.artifacts.get(key); ok || b.Status.Artifact == nil {
		return
	}
	artifact, err := r.store.Recall(ctx, bucketRequest(b), b.Status.Artifact.Revision)
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("the last revision is not at hand", "revision", b.Status.Artifact.Revision, "cause", err.Error())
		return
	}
	r.artifacts.put(key, artifact)
	r.changed(ctx, key)
}

// fetch brings the bucket up to date, with the credentials that its Secrets hold now.
func (r *buckets) fetch(ctx context.Context, b *sourcev1.Bucket) (source.Artifact, error) {
	u := bucketUser(client.ObjectKeyFromObject(b))
	r.references.begin(u)
	req, err := r.request(ctx, r.references.reader(u), b)
	r.references.end(u)
	if err != nil {
		return source.Artifact{}, err
	}
	artifact, err := r.store.Fetch(ctx, req.Request)
	if req.without != nil && errors.Is(err, failure.Of(failure.Denied)) {
		return source.Artifact{}, req.without // it is not for everybody, and this is why we are nobody
	}
	return artifact, err
}

// report puts what a fetch came to into the status and returns when to fetch
// again. After a failure the last artifact stays.
func (r *buckets) report(ctx context.Context, b *sourcev1.Bucket, artifact source.Artifact, err error) time.Duration {
	name := client.ObjectKeyFromObject(b)
	attempt, now := r.attempts.of(name), r.clock.Now()
	b.Status.ObservedGeneration = b.Generation
	if asked, ok := b.Annotations[meta.ReconcileRequestAnnotation]; ok {
		b.Status.LastHandledReconcileAt = asked
	}
	if err != nil {
		reason, terminal := bucketReason(err), failure.Terminal(err)
		if c := report.Condition(b, meta.ReadyCondition); c == nil || c.Message != err.Error() {
			r.events.Event(b, corev1.EventTypeWarning, reason, clip(err.Error()))
		}
		report.Failed(b, reason, err.Error(), terminal)
		report.FetchFailed(b, reason, err.Error())
		return attempt.failed(now, terminal, b.Spec.Interval.Duration)
	}
	attempt.failures = 0
	before := b.Status.Artifact
	b.Status.Artifact = r.published.status(ctx, bucketKey(name), artifact, before, now)
	b.Status.URL = b.Status.Artifact.URL
	b.Status.ObservedIgnore = b.Spec.Ignore
	message := fmt.Sprintf("stored artifact for revision '%s'", artifact.Revision)
	if !same(before, b.Status.Artifact) {
		r.events.Event(b, corev1.EventTypeNormal, "NewArtifact", message)
	}
	report.Ready(b, meta.SucceededReason, message)
	report.Stored(b, meta.SucceededReason, message)
	return jitter(max(b.Spec.Interval.Duration, shortestWait), string(b.UID))
}

// bucketReason returns the reason that the toolkit's users know.
func bucketReason(err error) string {
	var login *loginError
	switch {
	case errors.As(err, &login), errors.Is(err, failure.Of(failure.Denied)):
		return sourcev1.AuthenticationFailedReason
	case errors.Is(err, failure.Of(failure.Unsupported)):
		return report.ReasonNotSupported
	default:
		return sourcev1.BucketOperationFailedReason
	}
}
