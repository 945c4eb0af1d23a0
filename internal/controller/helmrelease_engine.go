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
		turns: e.turns, client: e.mgr.GetClient(), events: newRecorder(ctx, e.mgr.GetScheme(), cluster, HelmFieldManager, e.log), clock: c,
		pipeline: pipeline.New(nil), artifacts: e.units.artifacts, attempts: newAttempts(),
		written: newWritten[*helmv2.HelmRelease](), self: &feed{}, wording: newWording(), references: e.references,
		charts: newChartTemplates(), parsed: newParsedCharts(), memories: newReleaseMemories(), claimed: make(chan struct{}), rendered: e.meters.renders,
		budget: budget, tenancy: e.options.Tenancy, additiveReadyExpr: e.options.AdditiveReadyExpr,
	}
	ledger := observe.NewLedger(ctx, observe.Options{
		Cluster: cluster, Manager: HelmFieldManager, Group: object.HelmGroup, Clock: c, Log: e.log.WithName("releases"), Notify: r.saw,
		Yields: func(unit types.NamespacedName) bool { return e.options.Tenancy.Confined(unit.Namespace) },
	})
	applier := NewApplier(cluster, ledger, e.options.Requests, e.meters.request)
	applier.Manager, applier.Group, applier.Former = HelmFieldManager, object.HelmGroup, []string{"helm"}
	hub := &delivery{
		Target: pipeline.Target{Cluster: cluster, Ledger: ledger, Applier: applier}, ledger: ledger, explain: explainWith(cluster, e.mgr.GetAPIReader()),
	}
	o := e.targetOptions(c)
	o.manager, o.group = HelmFieldManager, object.HelmGroup
	o.units = r.addresses
	o.wake = func(unit types.NamespacedName, retry bool) {
		if retry {
			r.attempts.drift(unit)
		}
		r.self.add(unit, soon)
	}
	o.saw, o.left, o.moved = r.saw, r.pipeline.Forget, tellMoved(r.events)
	r.targets = newTargets(ctx, hub, o)
	r.storages = newStorages(ctx, r.stir, e.log.WithName("storage"))
	return r
}

func (r *helmReleases) addresses(ctx context.Context) ([]address, error) {
	var list helmv2.HelmReleaseList
	err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy)
	all := make([]address, 0, len(list.Items))
	for i := range list.Items {
		all = append(all, addressOfRelease(&list.Items[i]))
	}
	return all, err
}

// saw takes what the ledger saw to the release that it concerns.
func (r *helmReleases) saw(c observe.Change) {
	priority := soon
	if c.Drift {
		r.attempts.drift(c.Owner)
		priority = urgent
	}
	r.self.add(c.Owner, priority)
}

// stir brings a release back at once: something that it refers to changed.
func (r *helmReleases) stir(unit types.NamespacedName) {
	r.attempts.stir(unit)
	r.self.add(unit, soon)
}

// registerReleases adds the reconciler of HelmReleases, where the cluster has the kind.
func (e *engine) registerReleases(ctx context.Context) error {
	there, err := e.serves(ctx, helmv2.HelmReleaseKind, &helmv2.HelmReleaseList{})
	if err != nil || !there {
		e.releases = nil
		return err
	}
	r := e.releases
	indexer := e.mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &helmv2.HelmRelease{}, indexChart, indexByChart); err != nil {
		return fmt.Errorf("index HelmReleases by chart: %w", err)
	}
	if err := indexer.IndexField(ctx, &helmv2.HelmRelease{}, indexDependency, indexReleasesByDependency); err != nil {
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

// claimAll enters what the inventories of releases hold as wanted.
func (r *helmReleases) claimAll(ctx context.Context) error {
	defer close(r.claimed)
	var list helmv2.HelmReleaseList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("read the inventories of HelmReleases: %w", err)
	}
	for i := range list.Items {
		h := &list.Items[i]
		r.targets.claim(addressOfRelease(h))
		if words := r.wording.of(h); words.err == nil && h.Spec.KubeConfig == nil && !h.Spec.Suspend {
			_ = r.targets.hub.ledger.Judge(ctx, client.ObjectKeyFromObject(h), words.health) // tried again when it runs
		}
	}
	return nil
}
