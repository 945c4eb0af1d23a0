package provision

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

const (
	// outdated is when to come back where what was read was old: the event that the cache is behind with may not be one that
	// counts here.
	outdated = 200 * time.Millisecond
	// maxMessage bounds what a condition says, in bytes: providers may tell pages.
	maxMessage = 1024
)

// verdict is what is known of how far a cluster has come.
type verdict struct {
	status          metav1.ConditionStatus
	reason, message string
	// Of these, what is empty stays as it is.
	endpoint, provider, version string
	// again is when to look again if nothing happens until then; 0 for never.
	again time.Duration
}

func provisioned(message string) verdict {
	return verdict{status: metav1.ConditionTrue, reason: v1alpha1.ProvisionedReason, message: message}
}

func unprovisioned(reason, message string) verdict {
	return verdict{status: metav1.ConditionFalse, reason: reason, message: message}
}

// tell takes a verdict over into the status.
func (r *room) tell(ctx context.Context, cluster *v1alpha1.FleetCluster, v verdict) error {
	mark(cluster, v1alpha1.ProvisionedCondition, v.status, v.reason, v.message)
	s := &cluster.Status
	s.Endpoint, s.Provider = cmp.Or(v.endpoint, s.Endpoint), cmp.Or(v.provider, s.Provider)
	if v.version == "" || v.version == s.KubernetesVersion {
		return nil
	}
	reported, err := r.reported(ctx, cluster)
	if err == nil && !reported {
		s.KubernetesVersion = v.version
	}
	return err
}

// reported says whether the cluster itself has told its version: then that counts.
func (r *room) reported(ctx context.Context, cluster *v1alpha1.FleetCluster) (bool, error) {
	report := &v1alpha1.ClusterReport{}
	err := r.client.Get(ctx, client.ObjectKeyFromObject(cluster), report)
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return report.Status.Cluster.KubernetesVersion != "", nil
}

// mark sets a condition.
func mark(cluster *v1alpha1.FleetCluster, kind string, status metav1.ConditionStatus, reason, message string) {
	apimeta.SetStatusCondition(&cluster.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: clip(message), ObservedGeneration: cluster.Generation,
	})
}

// clip cuts what is too long for a condition.
func clip(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}

// write writes a status where it differs, and returns when to come back.
func (r *room) write(ctx context.Context, before, next *v1alpha1.FleetCluster, again time.Duration) (ctrl.Result, error) {
	if equality.Semantic.DeepEqual(before.Status, next.Status) {
		return ctrl.Result{RequeueAfter: again}, nil
	}
	// Others write conditions of their own: what they wrote meanwhile counts.
	err := r.client.Status().Patch(ctx, next, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: outdated}, nil
	case client.IgnoreNotFound(err) != nil:
		return ctrl.Result{}, fmt.Errorf("write the status of FleetCluster %s/%s: %w", before.Namespace, before.Name, err)
	default:
		return ctrl.Result{RequeueAfter: again}, nil
	}
}
