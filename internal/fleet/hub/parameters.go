package hub

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// templateOf returns the template of a cluster, and an empty one where there is none.
func (h *hub) templateOf(ctx context.Context, cluster *v1alpha1.FleetCluster) (*v1alpha1.ClusterTemplate, error) {
	of := &v1alpha1.ClusterTemplate{}
	if cluster.Spec.Template == nil {
		return of, nil
	}
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Spec.Template.Name}
	if there, err := h.peek(ctx, key, of); err != nil || !there {
		return &v1alpha1.ClusterTemplate{}, err
	}
	return of, nil
}

// parameters are what Placements and spec.sync may ask of a cluster's template, or why they are not known.
func (h *hub) parameters(ctx context.Context, cluster *v1alpha1.FleetCluster, of *v1alpha1.ClusterTemplate) (map[string]any, error) {
	switch {
	case cluster.Spec.Template == nil:
		return nil, nil
	case of.UID == "":
		return nil, &failure.Error{Op: "read", Object: "ClusterTemplate " + cluster.Spec.Template.Name, Kind: failure.NotFound, Err: fmt.Errorf("there is none in %s", cluster.Namespace)}
	}
	return h.compiler.Parameters(ctx, of, cluster)
}

// usersOf enqueues the clusters that are made from a template.
func (h *hub) usersOf() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var clusters v1alpha1.FleetClusterList
		if err := h.client.List(ctx, &clusters, uncopied(o.GetNamespace())...); err != nil {
			return nil // the cache has not begun: everything is looked at when it has
		}
		var all []reconcile.Request
		for i := range clusters.Items {
			if c := &clusters.Items[i]; c.Spec.Template != nil && c.Spec.Template.Name == o.GetName() {
				all = append(all, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(c)})
			}
		}
		return all
	})
}
