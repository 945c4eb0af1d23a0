package join

import (
	"context"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// Replace lets go of the cluster that has joined as a FleetCluster, so that another one can. When it returns, the
// certificate of the one before has no rights, and there is no invitation. The client must not read from a cache.
func Replace(ctx context.Context, c client.Client, key types.NamespacedName) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		cluster := &v1alpha1.FleetCluster{}
		if err := c.Get(ctx, key, cluster); err != nil {
			return fmt.Errorf("read %s: %w", object(key), err)
		}
		before := cluster.DeepCopy()
		cluster.Status.Incarnation, cluster.Status.ClusterID = "", ""
		apimeta.SetStatusCondition(&cluster.Status.Conditions, metav1.Condition{Type: v1alpha1.JoinedCondition, Status: metav1.ConditionFalse,
			Reason: v1alpha1.AwaitingJoinReason, ObservedGeneration: cluster.Generation, Message: "the cluster that had joined was let go; another one can be invited"})
		return writeStatus(ctx, c, cluster, before)
	})
	if err != nil {
		return fmt.Errorf("let go of the cluster: %w", err)
	}
	return Release(ctx, c, key)
}

// Release takes all rights from whoever joined as a FleetCluster, or was invited to. It is the last step of a
// removal; while the FleetCluster names an incarnation, the hub gives it its rights again.
func Release(ctx context.Context, c client.Client, key types.NamespacedName) error {
	if err := Uninvite(ctx, c, key); err != nil {
		return err
	}
	return revoke(ctx, c, key)
}
