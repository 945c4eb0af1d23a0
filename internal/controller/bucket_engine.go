package controller

import (
	"context"
	"fmt"
	"path/filepath"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/bowline-dev/bowline/internal/source/bucket"
)

// registerBuckets adds the reconciler of Buckets, where the cluster has the kind.
func (e *engine) registerBuckets(ctx context.Context) error {
	there, err := e.serves(ctx, sourcev1.BucketKind, &sourcev1.BucketList{})
	if err != nil || !there {
		return err
	}
	mirrors, err := parseMirrors(e.options.Mirrors)
	if err != nil {
		return err
	}
	store, err := bucket.New(bucket.Options{DataDir: filepath.Join(e.options.DataDir, "bucket"), Mirrors: mirrors, MaxFileSize: e.options.MaxFileSize})
	if err != nil {
		return err
	}
	e.buckets = &buckets{
		turns: e.turns, client: e.mgr.GetClient(), events: e.events, clock: clock.RealClock{}, store: store,
		artifacts: e.units.artifacts, published: e.published, attempts: newAttempts(), references: e.references, self: &feed{},
		identity: e.sources.identity, changed: e.sourceChanged,
	}
	err = ctrl.NewControllerManagedBy(e.mgr).Named("bucket").
		For(&sourcev1.Bucket{}, builder.WithPredicates(requested())).
		WatchesRawSource(e.buckets.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: fetchers, RateLimiter: patiently()}).
		Complete(e.buckets)
	if err != nil {
		return fmt.Errorf("set up Buckets: %w", err)
	}
	return nil
}
