package provision

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// remove deletes the cluster of a FleetCluster that is being deleted, once its member has left the fleet. One that is
// suspended stays.
func (b *clusterBuilder) remove(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(cluster, v1alpha1.ProvisionFinalizer) || controllerutil.ContainsFinalizer(cluster, v1alpha1.LeaveFinalizer) {
		return ctrl.Result{}, nil
	}
	policy := v1alpha1.DeletionPolicyDelete
	if cluster.Spec.Suspend {
		policy = v1alpha1.DeletionPolicyOrphan
	} else {
		waiting, err := b.removeCluster(ctx, cluster)
		if err != nil {
			return ctrl.Result{}, err
		}
		if waiting != "" {
			return b.waitFor(ctx, cluster, waiting)
		}
	}
	gone, err := b.Deliverer.Withdraw(ctx, cluster, policy)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case !gone:
		return b.waitFor(ctx, cluster, "waiting for the end of what Kustomization "+UnitName(cluster.Name)+" delivered")
	default:
		return ctrl.Result{}, b.finalizer(ctx, cluster, controllerutil.RemoveFinalizer)
	}
}

// removeCluster deletes the Cluster before everything else that the unit delivered, and says what is waited for. Cluster API takes
// a cluster apart in the order in which that can be done: machines before networks, and both before the identities that they are
// deleted with. Deleted all at once, objects that are needed for it may be gone first.
func (b *clusterBuilder) removeCluster(ctx context.Context, cluster *v1alpha1.FleetCluster) (waiting string, err error) {
	k, err := b.unit(ctx, cluster)
	if err != nil || k == nil || !k.DeletionTimestamp.IsZero() {
		return "", err
	}
	if there, err := b.clusters.watch(); err != nil || !there {
		return "", err
	}
	of, err := b.clusters.get(ctx, cluster)
	if err != nil || of == nil || !delivers(k, of) {
		return "", err
	}
	// Else it would be healed.
	if err := b.Deliverer.Hold(ctx, cluster); err != nil {
		return "", err
	}
	if of.GetDeletionTimestamp().IsZero() {
		uid := of.GetUID()
		if err := client.IgnoreNotFound(b.client.Delete(ctx, of, client.Preconditions{UID: &uid})); err != nil {
			return "", fmt.Errorf("delete Cluster %s/%s: %w", of.GetNamespace(), of.GetName(), err)
		}
	}
	return "waiting for the end of Cluster " + of.GetName() + deletingOf(of), nil
}

// delivers reports whether the Cluster is the unit's, and goes with it.
func delivers(k *kustomizev1.Kustomization, of *unstructured.Unstructured) bool {
	group := kustomizev1.GroupVersion.Group
	labels := of.GetLabels()
	return labels[group+"/name"] == k.Name && labels[group+"/namespace"] == k.Namespace && of.GetAnnotations()[group+"/prune"] != "disabled"
}

// deletingOf is what Cluster API says of what it still has to delete.
func deletingOf(of *unstructured.Unstructured) string {
	for _, c := range conditionsOf(of) {
		if c.kind == "Deleting" && c.status == metav1.ConditionTrue && c.message != "" {
			return ": " + c.message
		}
	}
	return ""
}

// waitFor tells what the end of a cluster waits for. Events bring it back; looking again is for what makes none.
func (b *clusterBuilder) waitFor(ctx context.Context, cluster *v1alpha1.FleetCluster, message string) (ctrl.Result, error) {
	next := cluster.DeepCopy()
	mark(next, v1alpha1.ProvisionedCondition, metav1.ConditionFalse, v1alpha1.DeletingReason, message)
	return b.write(ctx, cluster, next, b.Look)
}
