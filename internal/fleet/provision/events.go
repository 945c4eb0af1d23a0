package provision

import (
	"context"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// rewritten: somebody changed what is wanted, or deletes it.
func rewritten() predicate.Predicate { return predicate.GenerationChangedPredicate{} }

// buildable: what a cluster is rendered from has changed, it is being deleted, or somebody has let go of it.
func buildable() predicate.Predicate {
	return predicate.Or(rewritten(), predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{}, onUpdate(
		func(before, after *v1alpha1.FleetCluster) bool {
			return !slices.Equal(before.Finalizers, after.Finalizers)
		}))
}

// told: somebody changed a unit, or it tells something else than before.
func told() predicate.Predicate {
	return predicate.Or(rewritten(), predicate.LabelChangedPredicate{}, onUpdate(func(before, after *kustomizev1.Kustomization) bool {
		was, is := apimeta.FindStatusCondition(before.Status.Conditions, meta.ReadyCondition), apimeta.FindStatusCondition(after.Status.Conditions, meta.ReadyCondition)
		return !equality.Semantic.DeepEqual(was, is)
	}))
}

// onUpdate lets updates through for which differ is true, and everything else.
func onUpdate[T client.Object](differ func(before, after T) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(T)
		after, also := e.ObjectNew.(T)
		return ok && also && differ(before, after)
	}}
}

// usersOfTemplate enqueues the clusters that are made from a template.
func (r *room) usersOfTemplate() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var all v1alpha1.FleetClusterList
		if err := r.client.List(ctx, &all, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "list the clusters of a template", "template", o.GetName())
			return nil
		}
		var users []reconcile.Request
		for i := range all.Items {
			if ref := all.Items[i].Spec.Template; ref != nil && ref.Name == o.GetName() {
				users = append(users, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
			}
		}
		return users
	})
}

// templateOfUser enqueues the template that a cluster is made from, and the one that it was made from.
func templateOfUser() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		cluster, ok := o.(*v1alpha1.FleetCluster)
		if !ok || cluster.Spec.Template == nil {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Spec.Template.Name}}}
	})
}
