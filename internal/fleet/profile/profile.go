// Package profile is the room of the inventory that other tools read: it publishes each FleetCluster as a ClusterProfile of
// SIG-Multicluster, with the name and in the namespace of the FleetCluster. The kind is written without its Go types,
// which no proxy serves; what is written of it are the few types of this room.
package profile

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// Kind is the kind that is written.
var Kind = schema.GroupVersionKind{Group: "multicluster.x-k8s.io", Version: "v1alpha1", Kind: "ClusterProfile"}

// Manager is the name of the cluster manager in profiles, and the value of ManagerLabel.
const Manager = "bowline"

// ManagerLabel names, by the API's convention, the manager of a profile.
const ManagerLabel = "x-k8s.io/cluster-manager"

// owner is the field manager of profiles.
const owner = client.FieldOwner("bowline-profile")

// List returns an empty list of profiles, with which one can ask whether a cluster serves the kind.
func List() client.ObjectList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(Kind.GroupVersion().WithKind(Kind.Kind + "List"))
	return list
}

func empty() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(Kind)
	return u
}

// publisher is the controller.
type publisher struct{ client client.Client }

// Register adds the controller to a manager whose cluster serves the kind.
func Register(mgr ctrl.Manager) error {
	// Profiles are compared before they are written, so they are read from the cache too.
	c, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		Cache: &client.CacheOptions{Reader: mgr.GetCache(), Unstructured: true}})
	if err != nil {
		return fmt.Errorf("set up ClusterProfiles: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("fleet-profile").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(published())).
		Owns(empty()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second)}).
		Complete(&publisher{client: c})
	if err != nil {
		return fmt.Errorf("set up ClusterProfiles: %w", err)
	}
	return nil
}

// published lets through what a profile is made from.
func published() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.FleetCluster)
		after, also := e.ObjectNew.(*v1alpha1.FleetCluster)
		return ok && also && !equality.Semantic.DeepEqual(facts(before), facts(after))
	}}
}

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster.
func (p *publisher) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := &v1alpha1.FleetCluster{}
	if err := p.client.Get(ctx, req.NamespacedName, cluster); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err) // the profile goes with its owner
	}
	current := empty()
	err := p.client.Get(ctx, req.NamespacedName, current)
	switch {
	case apierrors.IsNotFound(err):
		current = nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("read ClusterProfile/%s: %w", req, err)
	case foreign(current):
		ctrllog.FromContext(ctx).Info("another cluster manager has a ClusterProfile of this name", "profile", req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if current == nil && !cluster.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	err = p.publish(ctx, cluster, current)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: 50 * time.Millisecond}, nil
	}
	return ctrl.Result{}, err
}

func foreign(current *unstructured.Unstructured) bool {
	name, _, err := unstructured.NestedString(current.Object, "spec", "clusterManager", "name")
	return err != nil || name != Manager
}

// publish writes what differs.
func (p *publisher) publish(ctx context.Context, cluster *v1alpha1.FleetCluster, current *unstructured.Unstructured) error {
	want, err := intended(cluster)
	if err != nil {
		return err
	}
	if current == nil || !holds(current, want) {
		current = want.DeepCopy()
		if err := p.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(current), owner, client.ForceOwnership); err != nil {
			return fmt.Errorf("publish FleetCluster/%s/%s: %w", cluster.Namespace, cluster.Name, err)
		}
	}
	var now status
	if of, ok := current.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(of, &now); err != nil {
			return fmt.Errorf("read the status of ClusterProfile/%s/%s: %w", cluster.Namespace, cluster.Name, err)
		}
	}
	next := told(cluster, now)
	if equality.Semantic.DeepEqual(now, next) {
		return nil
	}
	return p.tell(ctx, current, next)
}

// tell writes the status if nobody else did meanwhile: others write parts of it too.
func (p *publisher) tell(ctx context.Context, current *unstructured.Unstructured, next status) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": current.GetResourceVersion()}, "status": next})
	if err != nil {
		return err
	}
	profile := empty()
	profile.SetNamespace(current.GetNamespace())
	profile.SetName(current.GetName())
	err = p.client.Status().Patch(ctx, profile, client.RawPatch(types.MergePatchType, data), owner)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the status of ClusterProfile/%s/%s: %w", current.GetNamespace(), current.GetName(), err)
	}
	return nil
}
