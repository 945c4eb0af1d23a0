package hub

import (
	"context"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// leave has the member of a FleetCluster that is being deleted let go, and lets the FleetCluster go when it has.
func (a *assigner) leave(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	if !controllerutil.ContainsFinalizer(cluster, v1alpha1.LeaveFinalizer) {
		return nil
	}
	key := client.ObjectKeyFromObject(cluster)
	assignment, report := &v1alpha1.ClusterAssignment{}, &v1alpha1.ClusterReport{}
	assigned, err := a.peek(ctx, key, assignment)
	if err != nil {
		return err
	}
	if _, err := a.peek(ctx, key, report); err != nil {
		return err
	}
	taken, err := a.taken(ctx, cluster, assignment)
	if err != nil {
		return err
	}
	if assigned && !taken && metav1.IsControlledBy(assignment, cluster) && awaited(cluster, report) {
		return a.askToLeave(ctx, cluster, assignment)
	}
	exchanged := []client.Object{&v1alpha1.ClusterReport{ObjectMeta: metav1.ObjectMeta{Name: cluster.Name, Namespace: cluster.Namespace}}}
	if !taken {
		exchanged = append(exchanged, &v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Name: cluster.Name, Namespace: cluster.Namespace}})
	}
	for _, o := range exchanged {
		if err := client.IgnoreNotFound(a.client.Delete(ctx, o)); err != nil {
			return fmt.Errorf("delete what was exchanged with %s: %w", cluster.Name, err)
		}
	}
	next := cluster.DeepCopy()
	controllerutil.RemoveFinalizer(next, v1alpha1.LeaveFinalizer)
	err = a.client.Patch(ctx, next, client.MergeFromWithOptions(cluster, client.MergeFromWithOptimisticLock{}), owner)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("let FleetCluster %s go: %w", cluster.Name, err)
	}
	return nil
}

// askToLeave says so in the assignment. A cluster that is suspended stays as it is.
func (a *assigner) askToLeave(ctx context.Context, cluster *v1alpha1.FleetCluster, assignment *v1alpha1.ClusterAssignment) error {
	policy := cluster.Spec.DeletionPolicy
	switch {
	case cluster.Spec.Suspend:
		policy = v1alpha1.DeletionPolicyOrphan
	case policy == "":
		policy = v1alpha1.DeletionPolicyDelete
	}
	if assignment.Spec.Leave == policy && assignment.Spec.Incarnation == cluster.Status.Incarnation {
		return nil
	}
	next := assignment.DeepCopy()
	next.Spec.Leave, next.Spec.Incarnation = policy, cluster.Status.Incarnation
	if err := a.client.Update(ctx, next, owner); err != nil {
		return fmt.Errorf("tell %s to leave: %w", cluster.Name, err)
	}
	return nil
}

// awaited reports whether there is a member that still has to let go. One that cannot be reached is not waited for
// where its cluster is deleted anyway.
func awaited(cluster *v1alpha1.FleetCluster, report *v1alpha1.ClusterReport) bool {
	joined := cluster.Status.Incarnation != "" || report.Status.Assignment != "" || report.Status.Cluster.ID != ""
	switch {
	case !joined, report.Status.Left, cluster.Annotations[v1alpha1.LostAnnotation] == "true":
		return false
	default:
		return cluster.Spec.Template == nil || !unreachable(cluster)
	}
}

// unreachable reports whether the hub has given a member up for now.
func unreachable(cluster *v1alpha1.FleetCluster) bool {
	return apimeta.IsStatusConditionFalse(cluster.Status.Conditions, v1alpha1.ReachableCondition)
}
