package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bowline-dev/bowline/internal/source/blob"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/helmrepo"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// indexURL is the name of the index of HelmRepositories by URL.
const indexURL = "spec.url"

// newHelmSources returns what brings charts: the two kinds, which a cluster may lack.
func newHelmSources(e *engine) (*helmCharts, error) {
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
	return &helmCharts{
		sourceRoom: e.sourceRoom(sourcev1.HelmChartKind), store: archives,
		repositories: &helmRepositories{
			sourceRoom: e.sourceRoom(sourcev1.HelmRepositoryKind), store: indexes,
			indexes: map[types.NamespacedName]helmrepo.Index{}, generations: map[types.NamespacedName]int64{},
		},
		registries: registry.New(registry.Options{Blobs: layers, Mirrors: mirrors}), identity: e.identity, signatures: e.signatures,
	}, nil
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
	indexer := e.mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &sourcev1.HelmChart{}, indexSource, indexByChartSource); err != nil {
		return fmt.Errorf("index HelmCharts by source: %w", err)
	}
	if err := indexer.IndexField(ctx, &sourcev1.HelmRepository{}, indexURL, indexByURL); err != nil {
		return fmt.Errorf("index HelmRepositories by URL: %w", err)
	}
	charts, err := newHelmSources(e)
	if err != nil {
		return err
	}
	if err := registerSource(e, charts.repositories); err != nil {
		return err
	}
	if err := registerSource(e, charts); err != nil {
		return err
	}
	return e.mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		charts.tidy(ctx, e.log)
		charts.registries.Close()
		return nil
	}))
}

// The data folder is tidied now and then: what nobody was given for a while goes.
const (
	tidyEvery = time.Hour
	tidyAge   = 24 * time.Hour
)

// tidy removes what is of no use any more, until the engine ends.
func (r *helmCharts) tidy(ctx context.Context, log logr.Logger) {
	c := clock.RealClock{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.After(tidyEvery):
		}
		used, held := r.artifacts.digests(sourcev1.HelmChartKind), r.artifacts.digests(sourcev1.HelmRepositoryKind)
		err := r.store.Sweep(c.Now(), tidyAge, func(digest string) bool { return used[digest] })
		err = errors.Join(err, r.repositories.store.Sweep(c.Now(), tidyAge, func(digest string) bool { return held[digest] }))
		if err != nil {
			log.Error(err, "the data folder was not tidied")
		}
	}
}
