package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// sourceKind is what a kind of sources does in its own way; all else is the same for all of them, and is done
// by sourceLoop. What most kinds do alike they have from the sourceRoom that they work in.
type sourceKind[T any] interface {
	room() *sourceRoom
	// fetch brings a source up to date, with the credentials that its Secrets hold now. An untoldError keeps
	// its status as it is.
	fetch(ctx context.Context, o T) (fetched, error)
	// recall brings back from the data folder what the status names.
	recall(ctx context.Context, o T) (fetched, error)
	// reason returns the reason of a failure that the toolkit's users know.
	reason(err error) string
	// failed says in the condition that it belongs to why there is nothing new.
	failed(o report.Conditioned, reason string, err error)
	// forget drops what is known of a source that is gone.
	forget(key sourceKey, uid types.UID)
}

// fetched is what a fetch brought, and what is said of it.
type fetched struct {
	artifact source.Artifact
	// file is what others get of it; nil where that is made of its tree.
	file *artifactserve.File
	// reason and message are for the status, happened and event for the event of something new.
	reason, message, happened, event string
	// observe puts into the status what the kind alone knows; nil where that is nothing.
	observe func()
}

// stored is what was fetched as most kinds tell of it.
func stored(a source.Artifact, message string) fetched {
	return fetched{artifact: a, reason: meta.SucceededReason, message: message, happened: "NewArtifact", event: message}
}

// untoldError ends a reconcile of which the status does not tell, with an error or, where that is nil, without one.
type untoldError struct{ err error }

func (e *untoldError) Error() string { return fmt.Sprintf("not told: %v", e.err) }

func (e *untoldError) Unwrap() error { return e.err }

// sourceRoom is what the reconciler of each kind of sources works with.
type sourceRoom struct {
	kind      string
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	events    record.EventRecorder
	clock     clock.PassiveClock
	artifacts *artifacts
	published *published
	attempts  *attempts
	// references is what credentials and keys are read through: a change of one enqueues
	// its sources in self.
	references *references
	self       *feed.Feed
	// changed is told of every source whose artifact changed, or that has none and says anew why.
	changed func(context.Context, sourceKey)
}

func (e *engine) sourceRoom(kind string) *sourceRoom {
	r := &sourceRoom{
		kind: kind, turns: e.turns, client: e.mgr.GetClient(), events: e.events, clock: clock.RealClock{},
		artifacts: e.units.artifacts, published: e.published, attempts: newAttempts(), references: e.references, self: &feed.Feed{}, changed: e.sourceChanged,
	}
	e.sources[kind] = r
	return r
}

func (r *sourceRoom) room() *sourceRoom { return r }

func (r *sourceRoom) key(o client.Object) sourceKey {
	return sourceKey{Kind: r.kind, NamespacedName: client.ObjectKeyFromObject(o)}
}

// secrets returns what the Secrets of a source are read through, and what ends the reading: what was
// not read again is not referred to any more.
func (r *sourceRoom) secrets(o client.Object) (secrets client.Reader, end func()) {
	u := user(r.key(o))
	r.references.begin(u)
	return r.references.reader(u), func() { r.references.end(u) }
}

// failed implements sourceKind.
func (r *sourceRoom) failed(o report.Conditioned, reason string, err error) {
	report.FetchFailed(o, reason, err.Error())
}

// forget implements sourceKind: there is nothing more to forget.
func (r *sourceRoom) forget(sourceKey, types.UID) {}

// bring hands out what a source had before the engine started, if nothing is at hand.
func (r *sourceRoom) bring(ctx context.Context, key sourceKey, got fetched) {
	if _, ok := r.artifacts.get(key); ok {
		return
	}
	r.artifacts.put(key, got.artifact)
	if got.file != nil {
		r.published.statusOfFile(key, got.artifact, *got.file, nil, r.clock.Now())
	}
	r.changed(ctx, key)
}

// sourceLoop reconciles the sources of a kind: it fetches, hands the artifact to those who use it, and reports.
type sourceLoop[O any, T objectOf[O]] struct {
	*sourceRoom
	own sourceKind[T]
}

// objectOf is an object of a kind of sources.
type objectOf[O any] interface {
	*O
	client.Object
	report.Conditioned
	DeepCopy() *O
	GetRequeueAfter() time.Duration
}

// registerSource adds the reconciler of a kind of sources.
func registerSource[O any, T objectOf[O]](e *engine, own sourceKind[T]) error {
	loop := &sourceLoop[O, T]{own.room(), own}
	err := ctrl.NewControllerManagedBy(e.mgr).Named(strings.ToLower(loop.kind)).
		For(T(new(O)), builder.WithPredicates(requested())).
		WatchesRawSource(loop.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: e.options.fetchers, RateLimiter: patiently()}).
		Complete(loop)
	if err != nil {
		return fmt.Errorf("set up the reconciler of the kind %s: %w", loop.kind, err)
	}
	return nil
}

// Reconcile implements reconcile.Reconciler.
func (l *sourceLoop[O, T]) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	l.turns.Add(1)
	key, o := sourceKey{l.kind, req.NamespacedName}, T(new(O))
	err := l.client.Get(ctx, req.NamespacedName, o)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read %s: %w", key, err)
	}
	if err == nil {
		l.note(key, o.GetUID())
	}
	if apierrors.IsNotFound(err) || !o.GetDeletionTimestamp().IsZero() {
		l.drop(key)
		l.changed(ctx, key)
		return ctrl.Result{}, l.letGo(ctx, o)
	}
	if fieldsOf(o).suspended {
		l.recall(ctx, key, o)
		return ctrl.Result{}, nil
	}
	return l.renew(ctx, key, o)
}

// renew fetches a source and reports.
func (l *sourceLoop[O, T]) renew(ctx context.Context, key sourceKey, o T) (ctrl.Result, error) {
	before := T(o.DeepCopy())
	got, err := l.own.fetch(ctx, o)
	var untold *untoldError
	switch {
	case ctx.Err() != nil:
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	case errors.As(err, &untold):
		return ctrl.Result{}, untold.err
	case err != nil:
		l.recall(ctx, key, o)
	case l.artifacts.put(key, got.artifact):
		// Before the status is written: that may fail, and nobody waits for it.
		ctrl.LoggerFrom(ctx).Info("fetched", "revision", got.artifact.Revision)
		l.changed(ctx, key)
	}
	again := l.report(ctx, key, o, got, err)
	if !equality.Semantic.DeepEqual(before, o) {
		if err := l.client.Status().Patch(ctx, o, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	if err != nil && *fieldsOf(before).observed != o.GetGeneration() {
		l.changed(ctx, key) // those who wait for it say why they have to
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// note remembers whose data is to go with a source, which cannot be asked any more then.
func (l *sourceLoop[O, T]) note(key sourceKey, uid types.UID) {
	a := l.attempts.of(key.NamespacedName)
	if a.inputs != "" && a.inputs != string(uid) {
		l.drop(key) // it was made anew
		a = l.attempts.of(key.NamespacedName)
	}
	a.inputs = string(uid)
}

// drop lets go of a source that is gone.
func (l *sourceLoop[O, T]) drop(key sourceKey) {
	l.own.forget(key, types.UID(l.attempts.of(key.NamespacedName).inputs))
	l.artifacts.drop(key)
	l.published.withdraw(key)
	l.attempts.forget(key.NamespacedName)
	l.references.forget(user(key))
}

// letGo takes away the finalizer that the toolkit's engine leaves on its sources:
// nobody else would, and the object would never go.
func (l *sourceLoop[O, T]) letGo(ctx context.Context, o T) error {
	before := T(o.DeepCopy())
	if !controllerutil.RemoveFinalizer(o, sourcev1.SourceFinalizer) {
		return nil
	}
	if err := client.IgnoreNotFound(l.client.Patch(ctx, o, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

// recall brings back what the status names from the data folder, if there is nothing in memory: after
// a restart, a source that is suspended or cannot be reached goes on to serve its last revision.
func (l *sourceLoop[O, T]) recall(ctx context.Context, key sourceKey, o T) {
	last := *fieldsOf(o).artifact
	if _, ok := l.artifacts.get(key); ok || last == nil {
		return
	}
	got, err := l.own.recall(ctx, o)
	if err != nil {
		ctrl.LoggerFrom(ctx).Info("the last revision is not at hand", "revision", last.Revision, "cause", err.Error())
		return
	}
	l.bring(ctx, key, got)
}

// report puts what a fetch came to into the status and returns when to fetch
// again. After a failure the last artifact stays.
func (l *sourceLoop[O, T]) report(ctx context.Context, key sourceKey, o T, got fetched, err error) time.Duration {
	attempt, now, status := l.attempts.of(key.NamespacedName), l.clock.Now(), fieldsOf(o)
	*status.observed = o.GetGeneration()
	if asked, ok := o.GetAnnotations()[meta.ReconcileRequestAnnotation]; ok {
		status.requests.LastHandledReconcileAt = asked
	}
	if err != nil {
		reason, terminal := l.own.reason(err), failure.Terminal(err)
		if c := report.Condition(o, meta.ReadyCondition); c == nil || c.Message != err.Error() {
			l.events.Event(o, corev1.EventTypeWarning, reason, clip(err.Error()))
		}
		report.Failed(o, reason, err.Error(), terminal)
		l.own.failed(o, reason, err)
		return attempt.failed(now, terminal, o.GetRequeueAfter())
	}
	attempt.failures = 0
	before := *status.artifact
	if got.file != nil {
		*status.artifact = l.published.statusOfFile(key, got.artifact, *got.file, before, now)
	} else {
		*status.artifact = l.published.status(ctx, key, got.artifact, before, now)
	}
	if status.url != nil {
		*status.url = (*status.artifact).URL
	}
	if !same(before, *status.artifact) {
		l.events.Event(o, corev1.EventTypeNormal, got.happened, got.event)
	}
	if got.observe != nil {
		got.observe()
	}
	report.Ready(o, got.reason, got.message)
	report.Stored(o, got.reason, got.message)
	return jitter(max(o.GetRequeueAfter(), shortestWait), string(o.GetUID()))
}

// sourceFields are what the specs and statuses of all kinds of sources have.
type sourceFields struct {
	suspended bool
	observed  *int64
	requests  *meta.ReconcileRequestStatus
	artifact  **meta.Artifact
	url       *string // nil where the kind has none
}

// fieldsOf points to what an object of a kind that somebody here fetches has in common with others.
func fieldsOf(o client.Object) sourceFields {
	switch o := o.(type) {
	case *sourcev1.GitRepository:
		return sourceFields{o.Spec.Suspend, &o.Status.ObservedGeneration, &o.Status.ReconcileRequestStatus, &o.Status.Artifact, nil}
	case *sourcev1.OCIRepository:
		return sourceFields{o.Spec.Suspend, &o.Status.ObservedGeneration, &o.Status.ReconcileRequestStatus, &o.Status.Artifact, &o.Status.URL}
	case *sourcev1.Bucket:
		return sourceFields{o.Spec.Suspend, &o.Status.ObservedGeneration, &o.Status.ReconcileRequestStatus, &o.Status.Artifact, &o.Status.URL}
	case *sourcev1.HelmRepository:
		return sourceFields{o.Spec.Suspend && !isOCI(o), &o.Status.ObservedGeneration, &o.Status.ReconcileRequestStatus, &o.Status.Artifact, &o.Status.URL}
	case *sourcev1.HelmChart:
		return sourceFields{o.Spec.Suspend, &o.Status.ObservedGeneration, &o.Status.ReconcileRequestStatus, &o.Status.Artifact, &o.Status.URL}
	default:
		return sourceFields{}
	}
}
