package enroll

import (
	"context"
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// await says how a cluster joins that the hub does not reach.
func (e *enroller) await(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	if cluster.Status.Incarnation == "" {
		return ctrl.Result{}, e.waits(ctx, cluster, v1alpha1.AwaitingJoinReason, fmt.Sprintf(
			"to let it in: bowline join %s -n %s --member-context CONTEXT, or without that flag to print what the owners of the cluster apply", cluster.Name, cluster.Namespace))
	}
	if conflicts(cluster) {
		return e.settled(ctx, cluster)
	}
	if isJoined(cluster) {
		return ctrl.Result{}, e.has(ctx, cluster)
	}
	return ctrl.Result{}, nil
}

// older says what to do about an agent that is older than the hub, where only people can upgrade it.
func (e *enroller) older(cluster *v1alpha1.FleetCluster) string {
	hub, err := semver.NewVersion(e.Version)
	if err != nil || cluster.Spec.Join == nil {
		return ""
	}
	agent, err := semver.NewVersion(cluster.Status.AgentVersion)
	if err != nil || !agent.LessThan(hub) {
		return ""
	}
	return fmt.Sprintf("; it is %s and the hub %s, to upgrade it: bowline join %s -n %s --member-context CONTEXT",
		cluster.Status.AgentVersion, e.Version, cluster.Name, cluster.Namespace)
}

// joinedOf returns the condition, which is empty where there is none.
func joinedOf(cluster *v1alpha1.FleetCluster) metav1.Condition {
	if c := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.JoinedCondition); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func isJoined(cluster *v1alpha1.FleetCluster) bool {
	return joinedOf(cluster).Status == metav1.ConditionTrue
}

func conflicts(cluster *v1alpha1.FleetCluster) bool {
	return joinedOf(cluster).Reason == v1alpha1.IdentityConflictReason
}

// waits says why a cluster has not joined.
func (e *enroller) waits(ctx context.Context, cluster *v1alpha1.FleetCluster, reason, message string) error {
	return e.tell(ctx, cluster, metav1.ConditionFalse, reason, message)
}

// has says that a cluster has joined.
func (e *enroller) has(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	return e.tell(ctx, cluster, metav1.ConditionTrue, v1alpha1.JoinedReason, "the agent of the cluster "+cluster.Status.ClusterID+" has a certificate"+e.older(cluster))
}

// tell writes the condition where it differs. Who wrote it meanwhile knows better, and brings the cluster back.
func (e *enroller) tell(ctx context.Context, cluster *v1alpha1.FleetCluster, status metav1.ConditionStatus, reason, message string) error {
	before := cluster.DeepCopy()
	if !apimeta.SetStatusCondition(&cluster.Status.Conditions, metav1.Condition{Type: v1alpha1.JoinedCondition, Status: status, Reason: reason,
		Message: message, ObservedGeneration: cluster.Generation}) {
		return nil
	}
	err := e.direct.Status().Patch(ctx, cluster, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of FleetCluster/%s/%s: %w", cluster.Namespace, cluster.Name, err)
	}
	return nil
}

// failed says what keeps the hub from installing the agent, and tries again later. One that has joined goes on without it.
func (e *enroller) failed(ctx context.Context, cluster *v1alpha1.FleetCluster, cause error) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(cluster)
	first := e.Retry.NumRequeues(key) == 0
	again := ctrl.Result{RequeueAfter: e.Retry.When(key)}
	message := strings.Join(strings.Fields(cause.Error()), " ")
	ctrllog.FromContext(ctx).Info("cannot install the agent", "cluster", key, "cause", message, "again", again.RequeueAfter)
	if cluster.Status.Incarnation == "" {
		return again, e.waits(ctx, cluster, v1alpha1.InstallFailedReason, message)
	}
	if first {
		e.Events.Event(cluster, corev1.EventTypeWarning, v1alpha1.InstallFailedReason, message)
	}
	return again, nil
}
