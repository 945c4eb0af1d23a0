package hub

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// errTaken is what a FleetCluster is told whose name is the one that the hub has itself on the hub above.
var errTaken = errors.New("this hub is a member of another hub under the same name, and keeps under it what it was assigned itself; " +
	"nothing is assigned to this cluster: declare it under another name, or in another namespace than " + v1alpha1.MemberNamespace)

// taken reports whether the assignment under the name of a FleetCluster is the hub's own copy of what a hub above assigned to
// it. Neither what it says nor its end is for the hub to decide. A hub that is its own member has one object for both, and
// what an earlier FleetCluster has left belongs to nobody.
func (a *assigner) taken(ctx context.Context, cluster *v1alpha1.FleetCluster, current *v1alpha1.ClusterAssignment) (bool, error) {
	if current.Labels[v1alpha1.LabelSelf] != "true" || current.Namespace != v1alpha1.MemberNamespace {
		return false, nil
	}
	if by := metav1.GetControllerOf(current); by != nil && by.UID != cluster.UID {
		return false, nil
	}
	itself, err := a.itself.is(ctx, cluster)
	return !itself, err
}

// namesake enqueues the FleetCluster that has the name of a hub's own copy, which is free when the copy goes.
func namesake() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		if o.GetLabels()[v1alpha1.LabelSelf] != "true" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}}
	})
}

// deleted: an object is gone.
func deleted() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false }, UpdateFunc: func(event.UpdateEvent) bool { return false },
	}
}
