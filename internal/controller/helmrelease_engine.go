package controller

import (
	"context"
	"fmt"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
)

// newHelmReleases wires the second kind of unit: a ledger, a pipeline and an applier of its
// own, since these know objects by one group of labels; all else is shared.
func newHelmReleases(ctx context.Context, e *engine, cluster *kube.Cluster, budget plan.Budget) *helmReleases {
	c := clock.RealClock{}
	r := &helmReleases{
		units:  newUnits[*helmv2.HelmRelease](e, newRecorder(ctx, e.mgr.GetScheme(), cluster, HelmFieldManager, e.log), e.units.artifacts, pipeline.New(nil)),
		charts: newChartTemplates(), parsed: newParsedCharts(), memories: newReleaseMemories(), rendered: e.meters.renders, budget: budget,
	}
	r.statuses = cluster.Statuses(helmv2.GroupVersion.WithKind(helmv2.HelmReleaseKind), "helmreleases")
	r.one = func() *helmv2.HelmRelease { return &helmv2.HelmRelease{} }
	r.many = func() client.ObjectList { return &helmv2.HelmReleaseList{} }
	r.address = addressOfRelease
	ledger := observe.NewLedger(ctx, observe.Options{
		Cluster: cluster, Manager: HelmFieldManager, Group: object.HelmGroup, Clock: c, Log: e.log.WithName("releases"), Notify: r.saw,
		Yields: func(unit types.NamespacedName) bool { return e.options.Tenancy.Confined(unit.Namespace) },
		Beside: func(id object.ID, giver types.NamespacedName) bool {
			return r.targets.hub.station.wantedBeside(id, giver)
		},
	})
	applier := NewApplier(cluster, ledger, e.options.Requests, e.meters.request)
	applier.Manager, applier.Group, applier.Former = HelmFieldManager, object.HelmGroup, []string{"helm"}
	hub := &delivery{
		Target: pipeline.Target{Cluster: cluster, Ledger: ledger, Applier: applier}, ledger: ledger, explain: explainWith(cluster, e.mgr.GetAPIReader()),
	}
	o := r.reached(e.targetOptions(c))
	o.manager, o.group = HelmFieldManager, object.HelmGroup
	r.targets = newTargets(ctx, hub, o)
	r.storages = newStorages(ctx, r.stir, e.log.WithName("storage"))
	return r
}

// registerReleases adds the reconciler of HelmReleases, where the cluster has the kind.
func (e *engine) registerReleases(ctx context.Context) error {
	there, err := e.serves(ctx, helmv2.HelmReleaseKind, &helmv2.HelmReleaseList{})
	if err != nil || !there {
		e.releases, e.units.targets.beside = nil, nil
		return err
	}
	r := e.releases
	indexer := e.mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &helmv2.HelmRelease{}, indexChart, indexByChart); err != nil {
		return fmt.Errorf("index HelmReleases by chart: %w", err)
	}
	if err := indexer.IndexField(ctx, &helmv2.HelmRelease{}, indexDependency, indexByDependency); err != nil {
		return fmt.Errorf("index HelmReleases by dependency: %w", err)
	}
	b := ctrl.NewControllerManagedBy(e.mgr).Named("helmrelease").
		For(&helmv2.HelmRelease{}, builder.WithPredicates(requested())).
		Watches(&helmv2.HelmRelease{}, r.onNews(), builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesRawSource(r.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: e.options.Concurrency, RateLimiter: patiently()})
	for _, kind := range chartKinds {
		if !r.artifacts.unserved[kind] {
			b = b.Watches(sourceObject(kind), r.onChart(kind))
		}
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("set up HelmReleases: %w", err)
	}
	return nil
}

// serves reports whether the cluster has a kind that it may lack.
func (e *engine) serves(ctx context.Context, kind string, list client.ObjectList) (bool, error) {
	err := e.mgr.GetAPIReader().List(ctx, list, client.Limit(1))
	if err == nil {
		return true, nil
	}
	if !isNoMatch(err) {
		return false, fmt.Errorf("look for the kind %s: %w", kind, err)
	}
	e.units.artifacts.unserved[kind] = true
	e.log.Info("the cluster does not know a kind; install the definitions and restart", "kind", kind)
	return false, nil
}
