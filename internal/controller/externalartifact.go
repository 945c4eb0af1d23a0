package controller

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/archive"
)

// externalArtifacts reconciles ExternalArtifacts. Those that are made here are
// handed out without a way over HTTP, and only looked after. What
// somebody else's controller publishes is fetched from where its status says. Its
// object stays that controller's: nothing is written into it.
type externalArtifacts struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	clock     interface{ Now() time.Time }
	artifacts *artifacts
	attempts  *attempts
	handouts  *handouts
	transport http.RoundTripper
	limits    archive.Limits
	// changed is told of every artifact that changed.
	changed func(context.Context, sourceKey)
}

// fetchTimeout is how long the download of one archive may take.
const fetchTimeout = time.Minute

// Reconcile implements reconcile.Reconciler.
func (r *externalArtifacts) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	key := sourceKey{Kind: sourcev1.ExternalArtifactKind, NamespacedName: req.NamespacedName}
	ea := &sourcev1.ExternalArtifact{}
	err := r.client.Get(ctx, req.NamespacedName, ea)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read %s: %w", key, err)
	}
	gone := apierrors.IsNotFound(err) || !ea.DeletionTimestamp.IsZero()
	if maker, ok := r.handouts.of(req.NamespacedName); ok {
		if gone || !r.handouts.asMade(maker, ea) {
			r.handouts.wake(maker)
		}
		return ctrl.Result{}, nil
	}
	if gone || ea.Status.Artifact == nil {
		r.drop(ctx, key)
		return ctrl.Result{}, nil
	}
	if maker, ok := r.handouts.named(ea); ok && r.handouts.exists(ctx, maker) {
		r.handouts.wake(maker)
		return ctrl.Result{}, nil // after a start: it will make it
	}
	return ctrl.Result{RequeueAfter: r.fetch(ctx, key, ea)}, nil
}

// drop takes away what is handed out. Those who wait for it say why then.
func (r *externalArtifacts) drop(ctx context.Context, key sourceKey) {
	r.artifacts.drop(key)
	r.attempts.forget(key.NamespacedName)
	r.changed(ctx, key)
}

// fetch brings what is published, unless it is here, and returns when to try again.
func (r *externalArtifacts) fetch(ctx context.Context, key sourceKey, ea *sourcev1.ExternalArtifact) time.Duration {
	published := ea.Status.Artifact
	inputs := published.Revision + " " + published.Digest + " " + published.URL
	a := r.attempts.of(key.NamespacedName)
	if a.inputs != inputs {
		a.begin(inputs, r.clock.Now())
	} else if a.failures == 0 {
		return 0
	} else if left := a.barred(r.clock.Now()); left > 0 {
		return left
	}
	timed, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	artifact, err := archive.Fetch(timed, r.transport, published.URL, published.Digest, r.limits)
	if ctx.Err() != nil {
		return 0 // the engine stops
	}
	if err != nil {
		wait := a.failed(r.clock.Now(), failure.Terminal(err), ea.GetRequeueAfter())
		if r.artifacts.fail(key, err.Error()) {
			ctrl.LoggerFrom(ctx).Error(err, "not fetched", "revision", published.Revision, "retryIn", wait.String())
			r.changed(ctx, key)
		}
		return wait
	}
	artifact.Revision, artifact.Metadata = published.Revision, published.Metadata
	if r.artifacts.put(key, artifact) {
		ctrl.LoggerFrom(ctx).Info("fetched", "revision", artifact.Revision)
		r.changed(ctx, key)
	}
	return 0
}
