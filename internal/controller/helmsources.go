package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bowline-dev/bowline/internal/source/blob"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/helmrepo"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// helmSources is what brings charts: the two kinds that a cluster may lack.
type helmSources struct {
	repositories *helmRepositories
	charts       *helmCharts
}

// indexURL is the name of the index of HelmRepositories by URL.
const indexURL = "spec.url"

func newHelmSources(e *engine) (*helmSources, error) {
	mirrors, err := parseMirrors(e.options.Mirrors)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(e.options.DataDir, "helm")
	archives, err := helmchart.NewStore(filepath.Join(dir, "charts"))
	if err != nil {
		return nil, err
	}
	layers, err := blob.Open(filepath.Join(dir, "layers"), blob.Options{MaxBytes: 256 << 20, MaxBlobSize: helmchart.MaxArchive})
	if err != nil {
		return nil, err
	}
	indexes, err := helmrepo.New(helmrepo.Options{Dir: filepath.Join(dir, "repositories"), Charts: archives, Mirrors: mirrors})
	if err != nil {
		return nil, err
	}
	repositories := &helmRepositories{
		turns: e.turns, client: e.mgr.GetClient(), events: e.events, clock: clock.RealClock{}, store: indexes, published: e.published,
		attempts: newAttempts(), references: e.references, self: &feed{}, changed: e.sourceChanged,
		indexes: map[types.NamespacedName]helmrepo.Index{}, generations: map[types.NamespacedName]int64{},
	}
	return &helmSources{repositories: repositories, charts: &helmCharts{
		turns: e.turns, client: e.mgr.GetClient(), events: e.events, clock: clock.RealClock{}, store: archives, repositories: repositories,
		registries: registry.New(registry.Options{Blobs: layers, Mirrors: mirrors}), artifacts: e.units.artifacts, published: e.published,
		attempts: newAttempts(), references: e.references, self: &feed{}, changed: e.sourceChanged, identity: e.sources.identity,
		signatures: e.signatures,
	}}, nil
}

// registerHelmSources adds the reconcilers of HelmRepositories and HelmCharts, where the cluster has the kinds.
func (e *engine) registerHelmSources(ctx context.Context) error {
	for kind, list := range map[string]client.ObjectList{
		sourcev1.HelmRepositoryKind: &sourcev1.HelmRepositoryList{}, sourcev1.HelmChartKind: &sourcev1.HelmChartList{},
	} {
		if there, err := e.serves(ctx, kind, list); err != nil || !there {
			e.units.artifacts.unserved[sourcev1.HelmChartKind] = true
			return err
		}
	}
	helm, err := newHelmSources(e)
	if err != nil {
		return err
	}
	e.helm = helm
	indexer := e.mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &sourcev1.HelmChart{}, indexSource, indexByChartSource); err != nil {
		return fmt.Errorf("index HelmCharts by source: %w", err)
	}
	if err := indexer.IndexField(ctx, &sourcev1.HelmRepository{}, indexURL, indexByURL); err != nil {
		return fmt.Errorf("index HelmRepositories by URL: %w", err)
	}
	err = ctrl.NewControllerManagedBy(e.mgr).Named("helmrepository").
		For(&sourcev1.HelmRepository{}, builder.WithPredicates(requested())).
		WatchesRawSource(helm.repositories.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: fetchers, RateLimiter: patiently()}).
		Complete(helm.repositories)
	if err != nil {
		return fmt.Errorf("set up HelmRepositories: %w", err)
	}
	err = ctrl.NewControllerManagedBy(e.mgr).Named("helmchart").
		For(&sourcev1.HelmChart{}, builder.WithPredicates(requested())).
		WatchesRawSource(helm.charts.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: fetchers, RateLimiter: patiently()}).
		Complete(helm.charts)
	if err != nil {
		return fmt.Errorf("set up HelmCharts: %w", err)
	}
	return e.mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		e.tidyCharts(ctx)
		helm.charts.registries.Close()
		return nil
	}))
}

// The data folder is tidied now and then: what nobody was given for a while goes.
const (
	tidyEvery = time.Hour
	tidyAge   = 24 * time.Hour
)

// tidyCharts removes what is of no use any more, until the engine ends.
func (e *engine) tidyCharts(ctx context.Context) {
	c := clock.RealClock{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.After(tidyEvery):
		}
		used, held := e.units.artifacts.digests(sourcev1.HelmChartKind), e.helm.repositories.digests()
		err := e.helm.charts.store.Sweep(c.Now(), tidyAge, func(digest string) bool { return used[digest] })
		if err := errors.Join(err, e.helm.repositories.store.Sweep(c.Now(), tidyAge, func(digest string) bool { return held[digest] })); err != nil {
			e.log.Error(err, "the data folder was not tidied")
		}
	}
}

// wake enqueues an object that refers to something which changed.
func (h *helmSources) wake(u user) {
	if h == nil {
		return
	}
	if u.Kind == sourcev1.HelmRepositoryKind {
		h.repositories.self.add(u.NamespacedName, soon)
		return
	}
	h.charts.self.add(u.NamespacedName, soon)
}
