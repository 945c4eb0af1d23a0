package hub

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// outdated is after what time a write is tried again that was made from something old: an event is
// under way that says what is new.
const outdated = 100 * time.Millisecond

// assigner writes what a member is to run.
type assigner struct{ *hub }

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster.
func (a *assigner) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	room := a.rooms.of(req.Namespace)
	cluster := &v1alpha1.FleetCluster{}
	there, err := a.peek(ctx, req.NamespacedName, cluster)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case !there:
		a.wakePlacements(req.Namespace, room.forget(req.Name)...)
		return ctrl.Result{}, nil
	case !cluster.DeletionTimestamp.IsZero():
		a.wakePlacements(req.Namespace, room.forget(req.Name)...)
		err = a.leave(ctx, cluster)
	default:
		err = a.assign(ctx, room, cluster)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return ctrl.Result{RequeueAfter: outdated}, nil
	}
	return ctrl.Result{}, err
}

// assign brings the assignment of a cluster up to date.
func (a *assigner) assign(ctx context.Context, room *room, cluster *v1alpha1.FleetCluster) error {
	fleet, version := room.current()
	if fleet == nil {
		a.surveys.Add(types.NamespacedName{Namespace: cluster.Namespace})
		return nil
	}
	key := client.ObjectKeyFromObject(cluster)
	current := &v1alpha1.ClusterAssignment{}
	there, err := a.peek(ctx, key, current)
	if err != nil {
		return err
	}
	if cluster.Spec.Suspend {
		return a.leaveAlone(room, cluster, current, version)
	}
	if !controllerutil.ContainsFinalizer(cluster, v1alpha1.LeaveFinalizer) {
		return a.hold(ctx, cluster) // and its event brings the cluster back
	}
	if err := a.reportable(ctx, cluster); err != nil {
		return err
	}
	if taken, err := a.taken(ctx, cluster, current); err != nil {
		return err
	} else if taken {
		a.tell(room, cluster, state{version: version, generation: cluster.Generation, err: errTaken})
		return nil
	}
	if there && !metav1.IsControlledBy(current, cluster) {
		return a.evict(ctx, current)
	}
	of, err := a.templateOf(ctx, cluster)
	if err != nil {
		return err
	}
	before, known := room.state(cluster.Name)
	next := state{version: version, input: inputOf(version, cluster, current, of), generation: cluster.Generation}
	if known && before.input == next.input {
		return nil
	}
	if next.memo = before.memo; next.memo == nil {
		next.memo = &placement.Memo{}
	}
	want, err := a.made(ctx, room, fleet, cluster, current, of, &next)
	if err != nil {
		next.err, next.digest, next.units, next.written = err, current.Spec.Digest, unitsOf(&current.Spec), before.written
		a.tell(room, cluster, next)
		return ctx.Err()
	}
	if !there || !a.holds(current, want, before.written) {
		if current, err = a.write(ctx, cluster, current, want); err != nil {
			return err
		}
		next.input = inputOf(version, cluster, current, of)
	}
	next.written = current.Generation
	next.digest, next.units = want.Digest, unitsOf(want)
	a.tell(room, cluster, next)
	return nil
}

// inputOf names all that an assignment is made from.
func inputOf(version uint64, cluster *v1alpha1.FleetCluster, current *v1alpha1.ClusterAssignment, of *v1alpha1.ClusterTemplate) string {
	return fmt.Sprint(version, " ", cluster.UID, " ", cluster.ResourceVersion, " ", current.UID, " ", current.Generation, " ", of.UID, " ", of.Generation)
}

// made makes the assignment. Where a Placement stays that the survey does not know to leave, another is asked for.
func (a *assigner) made(ctx context.Context, room *room, fleet *placement.Fleet, cluster *v1alpha1.FleetCluster, current *v1alpha1.ClusterAssignment, of *v1alpha1.ClusterTemplate, next *state) (*v1alpha1.ClusterAssignmentSpec, error) {
	unknown := false
	parameters, missing := a.parameters(ctx, cluster, of)
	hub, err := a.itself.is(ctx, cluster)
	if err != nil {
		return nil, err
	}
	result, err := fleet.Assign(ctx, placement.Input{Cluster: cluster, Parameters: parameters, Unknown: missing, Current: &current.Spec, Hub: hub, Memo: next.memo, Held: func(name string) bool {
		keeps, known := room.keeps(name, cluster.Name)
		if keeps && !known && has(&current.Spec, name) {
			unknown = true
		}
		return keeps
	}})
	if err != nil {
		return nil, err
	}
	if unknown {
		a.surveys.Add(types.NamespacedName{Namespace: cluster.Namespace})
	}
	next.problems = result.Problems
	want := result.Spec
	want.Incarnation = cluster.Status.Incarnation
	want.ApprovedPlans = digests(cluster.Annotations[v1alpha1.ApprovedPlanAnnotation])
	return &want, nil
}

// leaveAlone takes note of what a suspended cluster has.
func (a *assigner) leaveAlone(room *room, cluster *v1alpha1.FleetCluster, current *v1alpha1.ClusterAssignment, version uint64) error {
	a.tell(room, cluster, state{version: version, generation: cluster.Generation, written: current.Generation, digest: current.Spec.Digest, units: unitsOf(&current.Spec)})
	return nil
}

// tell remembers what became of a cluster, and has those told who want to know.
func (a *assigner) tell(room *room, cluster *v1alpha1.FleetCluster, s state) {
	a.wakePlacements(cluster.Namespace, room.note(cluster.Name, s)...)
	a.clusters.Add(client.ObjectKeyFromObject(cluster))
}

// hold keeps a FleetCluster until its member has left.
func (a *assigner) hold(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	next := cluster.DeepCopy()
	controllerutil.AddFinalizer(next, v1alpha1.LeaveFinalizer)
	if err := a.client.Patch(ctx, next, client.MergeFromWithOptions(cluster, client.MergeFromWithOptimisticLock{}), owner); err != nil {
		return fmt.Errorf("keep FleetCluster %s until its member has left: %w", cluster.Name, err)
	}
	return nil
}

// reportable sees to it that there is something to report in.
func (a *assigner) reportable(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	report := &v1alpha1.ClusterReport{}
	there, err := a.peek(ctx, client.ObjectKeyFromObject(cluster), report)
	switch {
	case err != nil:
		return err
	case there && metav1.IsControlledBy(report, cluster):
		return nil
	case there:
		return a.evict(ctx, report)
	}
	report = &v1alpha1.ClusterReport{ObjectMeta: a.owned(cluster)}
	if err := a.client.Create(ctx, report, owner); err != nil {
		return fmt.Errorf("make the ClusterReport of %s: %w", cluster.Name, err)
	}
	return nil
}

// evict deletes what an earlier FleetCluster of the same name has left: its member is another one.
func (a *assigner) evict(ctx context.Context, o client.Object) error {
	uid := o.GetUID()
	err := a.client.Delete(ctx, o, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete what an earlier FleetCluster %s has left: %w", o.GetName(), err)
	}
	return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("fleetclusters").GroupResource(), o.GetName(), fmt.Errorf("what was there before goes first"))
}

func (a *assigner) owned(cluster *v1alpha1.FleetCluster) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: cluster.Name, Namespace: cluster.Namespace,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cluster, v1alpha1.GroupVersion.WithKind(v1alpha1.FleetClusterKind))},
	}
}

// holds reports whether an assignment is what it should be. One that somebody else may have written is compared as a whole.
func (a *assigner) holds(current *v1alpha1.ClusterAssignment, want *v1alpha1.ClusterAssignmentSpec, written int64) bool {
	has := &current.Spec
	if has.Digest != want.Digest || has.Incarnation != want.Incarnation || has.Leave != want.Leave || !slices.Equal(has.ApprovedPlans, want.ApprovedPlans) {
		return false
	}
	return current.Generation == written || has.Same(want)
}

// write makes or updates an assignment.
func (a *assigner) write(ctx context.Context, cluster *v1alpha1.FleetCluster, current *v1alpha1.ClusterAssignment, want *v1alpha1.ClusterAssignmentSpec) (*v1alpha1.ClusterAssignment, error) {
	next := &v1alpha1.ClusterAssignment{ObjectMeta: a.owned(cluster), Spec: *want}
	if current.UID == "" {
		if err := a.client.Create(ctx, next, owner); err != nil {
			return nil, fmt.Errorf("make the ClusterAssignment of %s: %w", cluster.Name, err)
		}
		return next, nil
	}
	next.ObjectMeta = *current.ObjectMeta.DeepCopy()
	if err := a.client.Update(ctx, next, owner); err != nil {
		return nil, fmt.Errorf("update the ClusterAssignment of %s: %w", cluster.Name, err)
	}
	return next, nil
}

// unitsOf counts the units of each Placement.
func unitsOf(spec *v1alpha1.ClusterAssignmentSpec) map[string]int {
	all := make(map[string]int, len(spec.Placements))
	for i := range spec.Placements {
		all[spec.Placements[i].Name] = len(spec.Placements[i].Units)
	}
	return all
}
