package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// reporter tells on a FleetCluster what its member reports.
type reporter struct {
	*hub
	// behind is since when clusters are behind their assignment.
	behind *moments
}

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster.
func (r *reporter) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := &v1alpha1.FleetCluster{}
	there, err := r.peek(ctx, req.NamespacedName, cluster)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !there {
		r.behind.forget(req.NamespacedName)
		r.sightings.drop(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	report := &v1alpha1.ClusterReport{}
	if _, err := r.peek(ctx, req.NamespacedName, report); err != nil {
		return ctrl.Result{}, err
	}
	if !metav1.IsControlledBy(report, cluster) {
		report = &v1alpha1.ClusterReport{}
	}
	next := cluster.DeepCopy()
	var again time.Duration
	if err := r.reachable(ctx, next); err != nil {
		return ctrl.Result{}, err
	}
	if cluster.DeletionTimestamp.IsZero() {
		s, ok := r.rooms.of(req.Namespace).state(req.Name)
		if !ok || s.generation != cluster.Generation {
			return ctrl.Result{}, nil // the assigner is on its way
		}
		again = r.roll(next, &report.Status, s)
	} else {
		deleting(next)
	}
	return ctrl.Result{RequeueAfter: again}, r.write(ctx, cluster, next)
}

// roll takes over what the member reports. A cluster that is behind its assignment for a moment only is as it was: a commit
// is then one status write for each cluster and not two.
func (r *reporter) roll(cluster *v1alpha1.FleetCluster, report *v1alpha1.ClusterReportStatus, s state) time.Duration {
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Name}
	units := unitsReady(report, s)
	if report.Assignment == "" || report.Assignment == s.digest {
		r.behind.forget(key)
	} else {
		r.behind.begin(key, r.Clock.Now())
		left := r.behind.left(key, r.Clock.Now(), r.Grace)
		if left > 0 && cluster.Status.ObservedGeneration == cluster.Generation && report.Problem == "" && report.Units.Failed == 0 {
			return left
		}
	}
	facts(&cluster.Status, report)
	cluster.Status.ObservedGeneration = cluster.Generation
	conclude(cluster, units)
	if errors.Is(s.err, errTaken) {
		refuse(cluster, s.err)
	}
	return 0
}

// write writes a status where it differs.
func (r *reporter) write(ctx context.Context, before, next *v1alpha1.FleetCluster) error {
	if equality.Semantic.DeepEqual(before.Status, next.Status) {
		return nil
	}
	// Others write conditions of their own: what they wrote meanwhile counts, and wakes this again.
	err := r.client.Status().Patch(ctx, next, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
	if apierrors.IsConflict(err) {
		r.clusters.AddAfter(client.ObjectKeyFromObject(before), outdated)
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the status of FleetCluster %s: %w", before.Name, err)
	}
	return nil
}

// syncProblem is what keeps a cluster from what it syncs.
func (s state) syncProblem() error { return errors.Join(s.err, s.problems[""]) }
