package controller

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/feed"
)

// registerAssignments adds the reconciler of the member's copy of its assignment, where the cluster
// has the kinds that this takes.
func (e *engine) registerAssignments(ctx context.Context) error {
	if e.composition == nil {
		return nil // which was told
	}
	if there, err := e.serves(ctx, fleetv1.ClusterAssignmentKind, &fleetv1.ClusterAssignmentList{}); err != nil || !there {
		return err
	}
	copies, err := e.ownCopies()
	if err != nil {
		return err
	}
	e.copies = copies
	r := newAssignments(e, copies)
	named := builder.WithPredicates(predicate.NewPredicateFuncs(reserved), predicate.Or(requested(), predicate.LabelChangedPredicate{}))
	err = ctrl.NewControllerManagedBy(e.mgr).Named("clusterassignment").
		WatchesRawSource(source.Kind(copies, &fleetv1.ClusterAssignment{}, &handler.TypedEnqueueRequestForObject[*fleetv1.ClusterAssignment]{},
			predicate.Or[*fleetv1.ClusterAssignment](predicate.TypedGenerationChangedPredicate[*fleetv1.ClusterAssignment]{}, predicate.TypedAnnotationChangedPredicate[*fleetv1.ClusterAssignment]{}))).
		WatchesRawSource(r.self).
		Watches(&kustomizev1.Kustomization{}, handler.EnqueueRequestsFromMapFunc(r.all), named).
		Watches(&sourcev1.ExternalArtifact{}, handler.EnqueueRequestsFromMapFunc(r.all), named).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, RateLimiter: patiently()}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up ClusterAssignments: %w", err)
	}
	return nil
}

// ownCopies is a cache of the member's own copy alone: a hub has ClusterAssignments of other clusters
// besides, which may be many.
func (e *engine) ownCopies() (cache.Cache, error) {
	copies, err := cache.New(e.mgr.GetConfig(), cache.Options{
		Scheme: e.mgr.GetScheme(), Mapper: e.mgr.GetRESTMapper(), HTTPClient: e.mgr.GetHTTPClient(),
		DefaultNamespaces:    map[string]cache.Config{fleetv1.MemberNamespace: {}},
		DefaultLabelSelector: labels.SelectorFromSet(labels.Set{fleetv1.LabelSelf: "true"}),
		DefaultTransform:     cache.TransformStripManagedFields(),
	})
	if err != nil {
		return nil, fmt.Errorf("set up ClusterAssignments: %w", err)
	}
	return copies, e.mgr.Add(copies)
}

func newAssignments(e *engine, copies client.Reader) *assignments {
	h := e.composition.handouts
	r := &assignments{
		turns: e.turns, client: e.mgr.GetClient(), copies: copies, events: e.events, clock: clock.RealClock{}, attempts: newAttempts(),
		deliveries: &deliveries{client: e.mgr.GetClient(), clock: clock.RealClock{}, handouts: h},
		held:       e.held, ledger: e.ledger, self: &feed.Feed{}, made: map[types.NamespacedName]madeParcels{},
	}
	h.kinds[fleetv1.ClusterAssignmentKind] = makerKind{apiVersion: fleetv1.GroupVersion.String(), self: r.self, exists: r.exists}
	e.held.changed = r.wakeAll
	return r
}

func (r *assignments) exists(ctx context.Context, name types.NamespacedName) bool {
	a := &fleetv1.ClusterAssignment{}
	return r.copies.Get(ctx, name, a) == nil && a.DeletionTimestamp.IsZero()
}

// all returns the copies: one, nearly always.
func (r *assignments) all(ctx context.Context, _ client.Object) []reconcile.Request {
	list := &fleetv1.ClusterAssignmentList{}
	if err := r.copies.List(ctx, list); err != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}
