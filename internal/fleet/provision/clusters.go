package provision

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// clusterGroup is that of Cluster API, whose kinds are read in the version that the hub prefers.
const clusterGroup = "cluster.x-k8s.io"

var clusterKind = schema.GroupKind{Group: clusterGroup, Kind: "Cluster"}

// clusters are the Clusters of Cluster API, watched from the moment on when somebody asks for them and the hub has
// their kind.
type clusters struct {
	mapper     apimeta.RESTMapper
	cache      cache.Cache
	controller controller.Controller

	mu  sync.Mutex
	gvk schema.GroupVersionKind // guarded by mu; empty as long as they are not watched
}

func newClusters(mgr ctrl.Manager, c controller.Controller) *clusters {
	return &clusters{mapper: mgr.GetRESTMapper(), cache: mgr.GetCache(), controller: c}
}

// watch sees to it that they are watched, and returns false where the hub does not have their kind.
func (c *clusters) watch() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gvk.Empty() {
		return true, nil
	}
	mapping, err := c.mapper.RESTMapping(clusterKind)
	if apimeta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the kind Cluster: %w", err)
	}
	// Its Cluster has the name and the namespace of a FleetCluster, or is none of it.
	err = c.controller.Watch(source.Kind(c.cache, named(mapping.GroupVersionKind), &handler.TypedEnqueueRequestForObject[*unstructured.Unstructured]{}, moved()))
	if err != nil {
		return false, fmt.Errorf("watch the kind Cluster: %w", err)
	}
	c.gvk = mapping.GroupVersionKind
	return true, nil
}

func named(gvk schema.GroupVersionKind) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u
}

// moved: something about a Cluster has changed that is told on.
func moved() predicate.TypedPredicate[*unstructured.Unstructured] {
	return predicate.TypedFuncs[*unstructured.Unstructured]{UpdateFunc: func(e event.TypedUpdateEvent[*unstructured.Unstructured]) bool {
		before, after := e.ObjectOld.Object, e.ObjectNew.Object
		return !equality.Semantic.DeepEqual(before["spec"], after["spec"]) || !equality.Semantic.DeepEqual(before["status"], after["status"]) ||
			e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
	}}
}

// get returns the Cluster of a FleetCluster as the watch has it; nil where there is none.
func (c *clusters) get(ctx context.Context, cluster *v1alpha1.FleetCluster) (*unstructured.Unstructured, error) {
	c.mu.Lock()
	u := named(c.gvk)
	c.mu.Unlock()
	err := c.cache.Get(ctx, client.ObjectKeyFromObject(cluster), u)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // as the comment says
	case err != nil:
		return nil, fmt.Errorf("read Cluster %s/%s: %w", cluster.Namespace, cluster.Name, err)
	default:
		return u, nil
	}
}
