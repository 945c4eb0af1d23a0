package controller

import (
	"context"
	"fmt"
	"net/http"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/source/archive"
)

// composition is what makes artifacts out of others: the two kinds that a cluster may lack.
type composition struct {
	handouts   *handouts
	generators *artifactGenerators
	externals  *externalArtifacts
}

func newComposition(e *engine) *composition {
	h := &handouts{
		client: e.mgr.GetClient(), artifacts: e.units.artifacts, published: e.published, changed: e.sourceChanged,
		kinds: map[string]makerKind{}, makers: map[types.NamespacedName]maker{},
	}
	generators := &artifactGenerators{
		turns: e.turns, client: e.mgr.GetClient(), events: e.events, clock: clock.RealClock{},
		artifacts: e.units.artifacts, attempts: newAttempts(), tenancy: e.options.Tenancy, self: &feed.Feed{}, handouts: h,
		made: map[types.NamespacedName]*made{},
	}
	h.kinds[swapi.ArtifactGeneratorKind] = makerKind{apiVersion: swapi.GroupVersion.String(), self: generators.self, exists: generators.exists}
	transport, _ := http.DefaultTransport.(*http.Transport)
	return &composition{handouts: h, generators: generators, externals: &externalArtifacts{
		turns: e.turns, client: e.mgr.GetClient(), clock: clock.RealClock{}, artifacts: e.units.artifacts, attempts: newAttempts(),
		handouts: h, transport: transport.Clone(), limits: archive.Limits{MaxFileSize: e.options.MaxFileSize}, changed: e.sourceChanged,
	}}
}

// optionalKinds are those that a cluster may lack: the engine then starts without
// them, and takes them up when it is started next.
func optionalKinds() map[string]client.ObjectList {
	return map[string]client.ObjectList{
		sourcev1.ExternalArtifactKind: &sourcev1.ExternalArtifactList{},
		swapi.ArtifactGeneratorKind:   &swapi.ArtifactGeneratorList{},
	}
}

// sourceChanged wakes everybody who uses a source.
func (e *engine) sourceChanged(ctx context.Context, key sourceKey) {
	e.units.wakeUsers(ctx, key)
	wakeIndexed(ctx, e.mgr.GetClient(), &sourcev1.GitRepositoryList{}, indexInclude, key, e.sources[sourcev1.GitRepositoryKind].self)
	if e.composition != nil {
		wakeIndexed(ctx, e.mgr.GetClient(), &swapi.ArtifactGeneratorList{}, indexSource, key, e.composition.generators.self)
	}
	if charts := e.sources[sourcev1.HelmChartKind]; charts != nil {
		wakeIndexed(ctx, e.mgr.GetClient(), &sourcev1.HelmChartList{}, indexSource, key, charts.self)
	}
	if e.releases != nil {
		e.releases.wakeUsers(ctx, key)
	}
}

// registerComposition adds the reconcilers of the kinds that the cluster has.
func (e *engine) registerComposition(ctx context.Context) error {
	for kind, list := range optionalKinds() {
		err := e.mgr.GetAPIReader().List(ctx, list, client.Limit(1))
		if err == nil {
			continue
		}
		if !isNoMatch(err) {
			return fmt.Errorf("look for the kind %s: %w", kind, err)
		}
		e.units.artifacts.unserved[sourcev1.ExternalArtifactKind] = true
		e.log.Info("artifacts are not composed: the cluster does not know a kind that this takes; install the definitions and restart", "kind", kind)
		return nil
	}
	e.composition = newComposition(e)
	if err := e.mgr.GetFieldIndexer().IndexField(ctx, &swapi.ArtifactGenerator{}, indexSource, indexBySources); err != nil {
		return fmt.Errorf("index ArtifactGenerators by source: %w", err)
	}
	err := ctrl.NewControllerManagedBy(e.mgr).Named("artifactgenerator").
		For(&swapi.ArtifactGenerator{}, builder.WithPredicates(requested())).
		WatchesRawSource(e.composition.generators.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: composers, RateLimiter: patiently()}).
		Complete(e.composition.generators)
	if err != nil {
		return fmt.Errorf("set up ArtifactGenerators: %w", err)
	}
	err = ctrl.NewControllerManagedBy(e.mgr).Named("externalartifact").
		For(&sourcev1.ExternalArtifact{}, builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: e.options.fetchers, RateLimiter: patiently()}).
		Complete(e.composition.externals)
	if err != nil {
		return fmt.Errorf("set up ExternalArtifacts: %w", err)
	}
	return nil
}

// composers is how many generators are worked on at one time.
const composers = 4
