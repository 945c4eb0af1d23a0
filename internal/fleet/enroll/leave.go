package enroll

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// parting is how long a cluster that leaves may be away until its agent is left there.
const parting = time.Minute

// leave takes the agent away from a cluster that stays, when it has let go of everything.
func (e *enroller) leave(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	if !slices.Contains(cluster.Finalizers, v1alpha1.AgentFinalizer) || slices.Contains(cluster.Finalizers, v1alpha1.LeaveFinalizer) {
		return ctrl.Result{}, nil
	}
	key := client.ObjectKeyFromObject(cluster)
	now := e.Clock.Now()
	lost := cluster.Annotations[v1alpha1.LostAnnotation] == "true"
	if err := e.remove(ctx, cluster); err != nil {
		if !lost && failure.KindOf(err) != failure.NotFound && now.Sub(e.seen.began(key, now)) < parting {
			return ctrl.Result{RequeueAfter: min(e.Retry.When(key), parting/4)}, nil
		}
		e.Events.Eventf(cluster, corev1.EventTypeWarning, "AgentNotRemoved",
			"%v; what is left on the cluster: the Deployment, ServiceAccount and ClusterRoleBinding %s, the Secrets hub and %s", err, agent.Name, agent.InvitationName)
	}
	before := cluster.DeepCopy()
	controllerutil.RemoveFinalizer(cluster, v1alpha1.AgentFinalizer)
	err := e.direct.Patch(ctx, cluster, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("let FleetCluster/%s/%s go: %w", cluster.Namespace, cluster.Name, err)
	}
	return ctrl.Result{}, nil
}

// remove takes the agent away, unless another cluster is reached by now than the one that joined, or the agent there has joined
// as somebody else: then it is not this FleetCluster's to remove.
func (e *enroller) remove(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	m, err := e.reach(ctx, cluster)
	if err != nil {
		return fmt.Errorf("remove the agent: %w", err)
	}
	if cluster.Status.Incarnation != "" && cluster.Status.Incarnation != incarnation(cluster, m.id) {
		return nil
	}
	switch has, err := (join.Store{Client: m}).Load(ctx); {
	case err != nil:
		return fmt.Errorf("remove the agent: %w", err)
	case has != nil && has.UID != cluster.UID:
		return nil
	}
	return agent.Remove(ctx, m)
}

// retire takes away the agent of a cluster that the hub serves itself by now.
func (e *enroller) retire(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	if cluster.Annotations[v1alpha1.AgentAnnotation] == "" || !provisioned(cluster) {
		return ctrl.Result{}, nil
	}
	if err := e.remove(ctx, cluster); err != nil {
		return e.failed(ctx, cluster, err)
	}
	e.Retry.Forget(client.ObjectKeyFromObject(cluster))
	return ctrl.Result{}, e.note(ctx, cluster, "")
}
