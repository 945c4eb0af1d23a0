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
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bowline-dev/bowline/internal/source/blob"
	"github.com/bowline-dev/bowline/internal/source/oci"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

func newOCIRepositories(e *engine) (*ociRepositories, error) {
	mirrors, err := parseMirrors(e.options.Mirrors)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(e.options.DataDir, "oci")
	layers, err := blob.Open(filepath.Join(dir, "layers"), blob.Options{})
	if err != nil {
		return nil, err
	}
	registries := registry.New(registry.Options{Blobs: layers, Mirrors: mirrors})
	store, err := oci.New(oci.Options{Dir: filepath.Join(dir, "served"), Client: registries, Blobs: layers})
	if err != nil {
		return nil, err
	}
	return &ociRepositories{
		turns: e.turns, client: e.mgr.GetClient(), events: e.events, clock: clock.RealClock{}, store: store,
		artifacts: e.units.artifacts, published: e.published, attempts: newAttempts(), references: e.references, self: &feed{},
		identity: e.sources.identity, signatures: e.signatures, registries: registries, changed: e.sourceChanged,
	}, nil
}

// registerOCIRepositories adds the reconciler of OCIRepositories, where the cluster has them.
func (e *engine) registerOCIRepositories(ctx context.Context) error {
	if there, err := e.serves(ctx, sourcev1.OCIRepositoryKind, &sourcev1.OCIRepositoryList{}); err != nil || !there {
		return err
	}
	var err error
	if e.oci, err = newOCIRepositories(e); err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(e.mgr).Named("ocirepository").
		For(&sourcev1.OCIRepository{}, builder.WithPredicates(requested())).
		WatchesRawSource(e.oci.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: fetchers, RateLimiter: patiently()}).
		Complete(e.oci)
	if err != nil {
		return fmt.Errorf("set up OCIRepositories: %w", err)
	}
	return e.mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		e.oci.registries.Close()
		return nil
	}))
}
