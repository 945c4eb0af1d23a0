package push

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// tell writes what was found into the status, unless it says so already.
func (p *Pusher) tell(ctx context.Context, cluster *v1alpha1.FleetCluster, f found) error {
	next := cluster.DeepCopy()
	joined := metav1.Condition{Type: v1alpha1.JoinedCondition, ObservedGeneration: cluster.Generation}
	switch {
	case f.left:
		return nil
	case f.running:
		next.Status.ClusterID, next.Status.Incarnation = string(f.id), f.incarnation
		joined.Status, joined.Reason, joined.Message = metav1.ConditionTrue, v1alpha1.JoinedReason, "the hub's engine for the cluster "+string(f.id)+" runs"
	case f.err == nil:
		return nil // it is being prepared
	case !lasting(f.err) && cluster.Status.Incarnation != "" && apimeta.IsStatusConditionTrue(cluster.Status.Conditions, v1alpha1.JoinedCondition):
		return nil // it is a member that does not answer, which its Lease tells
	default:
		joined.Status, joined.Reason, joined.Message = metav1.ConditionFalse, reasonOf(f.err), f.err.Error()
	}
	apimeta.SetStatusCondition(&next.Status.Conditions, joined)
	if equality.Semantic.DeepEqual(next.Status, cluster.Status) {
		return nil
	}
	err := p.client.Status().Patch(ctx, next, client.MergeFromWithOptions(cluster, client.MergeFromWithOptimisticLock{}), owner)
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", object(client.ObjectKeyFromObject(cluster)), err)
	}
	return nil
}

func reasonOf(err error) string {
	if errors.Is(err, failure.Of(failure.Conflict)) {
		return v1alpha1.IdentityConflictReason
	}
	return v1alpha1.InstallFailedReason
}
