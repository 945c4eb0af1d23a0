package pivot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
)

// settle does what is left before the target's engine may act.
func (o Options) settle(ctx context.Context) error {
	if err := o.adopt(ctx); err != nil {
		return err
	}
	clusters := &v1alpha1.FleetClusterList{}
	if err := o.From.Client.List(ctx, clusters); err != nil {
		return wrap(err, "list the FleetClusters that were left")
	}
	for i := range clusters.Items {
		c := &clusters.Items[i]
		if c.Spec.Agent.Mode == v1alpha1.AgentPush {
			if err := o.handOver(ctx, c); err != nil {
				return err
			}
			continue
		}
		// An agent that is refused takes the invitation of another hub, and one that hears nothing waits.
		if err := join.Release(ctx, o.From.Client, client.ObjectKeyFromObject(c)); err != nil {
			return err
		}
	}
	o.Tell("members", fmt.Sprintf("are left by the hub before: %d", len(clusters.Items)))
	return nil
}

// handOver has a member to which the hub pushes be the member of the FleetCluster as it is on the target: the copy of its assignment says whose it is,
// and the engine of another hub leaves it alone.
func (o Options) handOver(ctx context.Context, before *v1alpha1.FleetCluster) error {
	key := client.ObjectKeyFromObject(before)
	now := &v1alpha1.FleetCluster{}
	if err := o.To.Client.Get(ctx, key, now); err != nil {
		return wrap(err, "read FleetCluster/%s", key)
	}
	config, err := access.Config(ctx, o.To.Client, now, kube.KubeconfigOptions{})
	if err != nil {
		return err
	}
	m, err := Connect(ctx, config)
	if err != nil {
		return wrap(err, "hand over FleetCluster/%s", key)
	}
	is := join.Identity{Namespace: key.Namespace, Name: key.Name, UID: now.UID, Member: m.ID}
	was := is
	was.UID = before.UID
	copies := &v1alpha1.ClusterAssignmentList{}
	err = m.Client.List(ctx, copies, client.InNamespace(v1alpha1.MemberNamespace), client.MatchingLabels{v1alpha1.LabelSelf: "true"})
	if apimeta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return wrap(err, "hand over FleetCluster/%s", key)
	}
	for i := range copies.Items {
		c := &copies.Items[i]
		if c.Spec.Incarnation != was.Incarnation() {
			continue
		}
		old := c.DeepCopy()
		c.Spec.Incarnation = is.Incarnation()
		if err := m.Client.Patch(ctx, c, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}), owner); err != nil {
			return wrap(err, "hand over FleetCluster/%s", key)
		}
	}
	return nil
}

// adopt makes what the target had as a member what it has as a hub: the sources that it followed pinned, and its own assignment.
func (o Options) adopt(ctx context.Context) error {
	namespaces, err := fleets(ctx, o.From)
	if err != nil {
		return err
	}
	for _, k := range carriedKinds() {
		if k.Group != sourceGroup {
			continue
		}
		for _, namespace := range namespaces {
			all, err := k.list(ctx, o.From, namespace)
			if err != nil {
				return err
			}
			for i := range all {
				if err := o.adoptSource(ctx, &all[i]); err != nil {
					return err
				}
			}
		}
	}
	if o.Cluster.Namespace != v1alpha1.MemberNamespace {
		return nil
	}
	// The copy on the member and the assignment of the hub have one name, and are one object.
	own := &unstructured.Unstructured{}
	own.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.ClusterAssignmentKind))
	err = o.To.Client.Get(ctx, o.Cluster, own)
	if err != nil {
		return wrap(client.IgnoreNotFound(err), "read the assignment of the target")
	}
	before := own.DeepCopy()
	if err := o.own(ctx, own); err != nil {
		return err
	}
	return wrap(o.To.Client.Patch(ctx, own, client.MergeFrom(before), owner), "take over the assignment of the target")
}

const sourceGroup = "source.toolkit.fluxcd.io"

// adoptSource takes over a source that the target was given as a member.
func (o Options) adoptSource(ctx context.Context, u *unstructured.Unstructured) error {
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(u.GroupVersionKind())
	err := o.To.Client.Get(ctx, client.ObjectKeyFromObject(u), now)
	if err != nil {
		return wrap(client.IgnoreNotFound(err), "read %s of the target", object.IDOf(u))
	}
	if !assigned(now) {
		return nil
	}
	// Without the labels of who delivered it, it is not deleted with what was delivered.
	now.SetLabels(u.GetLabels())
	now.SetAnnotations(with(u.GetAnnotations(), carriedFrom, string(o.From.ID)))
	now.Object["spec"] = u.DeepCopy().Object["spec"]
	if err := o.To.Client.Update(ctx, now, owner); err != nil {
		return wrap(err, "take over %s", object.IDOf(u))
	}
	return disown(ctx, o.To, now, u.GetManagedFields())
}

// assigned reports whether an object was delivered by what a hub assigned: what a member is given to follow.
func assigned(u *unstructured.Unstructured) bool {
	l := u.GetLabels()
	return l[object.KustomizeGroup+"/namespace"] == v1alpha1.MemberNamespace && l[object.KustomizeGroup+"/name"] == v1alpha1.SourcesUnit
}

// Wait returns when all FleetClusters that were ready on the hub that was left are ready on the target. It calls tell with those that have become so.
func Wait(ctx context.Context, o Options, tell func(string)) error {
	wanted, err := o.readyBefore(ctx)
	if err != nil {
		return err
	}
	var last map[types.NamespacedName]string
	told := map[types.NamespacedName]bool{}
	err = wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		now, err := statesOn(ctx, o.To)
		if err != nil {
			return false, nil //nolint:nilerr // its engine has just begun, or it is told below
		}
		last = map[types.NamespacedName]string{}
		for _, key := range wanted {
			if why := now[key]; why != "" {
				last[key] = why
			} else if !told[key] {
				told[key] = true
				tell(key.String())
			}
		}
		return len(last) == 0, nil
	})
	if err == nil {
		return nil
	}
	f := &failure.Error{Op: "wait for the clusters of", Object: "the new hub", Kind: failure.Timeout, Err: errors.New("it does not answer"),
		Remedy: "nothing is lost: call it again to wait on"}
	for _, key := range wanted {
		if why := last[key]; why != "" {
			f.Err = fmt.Errorf("FleetCluster/%s is not ready: %s", key, why)
			break
		}
	}
	return f
}

// readyBefore returns the FleetClusters that were ready and can be by themselves on another hub.
func (o Options) readyBefore(ctx context.Context) ([]types.NamespacedName, error) {
	all := &v1alpha1.FleetClusterList{}
	if err := o.From.Client.List(ctx, all); err != nil {
		return nil, wrap(err, "list the FleetClusters that were left")
	}
	var out []types.NamespacedName
	for i := range all.Items {
		c := &all.Items[i]
		if (c.Spec.Join == nil || client.ObjectKeyFromObject(c) == o.Cluster) && apimeta.IsStatusConditionTrue(c.Status.Conditions, "Ready") {
			out = append(out, client.ObjectKeyFromObject(c))
		}
	}
	slices.SortFunc(out, func(a, b types.NamespacedName) int { return cmp.Compare(a.String(), b.String()) })
	return out, nil
}

// Joins returns the FleetClusters that have to be invited by hand: the hub has no way to them.
func Joins(ctx context.Context, o Options) ([]types.NamespacedName, error) {
	all := &v1alpha1.FleetClusterList{}
	if err := o.From.Client.List(ctx, all); err != nil {
		return nil, wrap(err, "list the FleetClusters that were left")
	}
	return o.joins(all.Items), nil
}

func (o Options) joins(clusters []v1alpha1.FleetCluster) (out []types.NamespacedName) {
	for i := range clusters {
		if key := client.ObjectKeyFromObject(&clusters[i]); clusters[i].Spec.Join != nil && key != o.Cluster {
			out = append(out, key)
		}
	}
	return out
}

// statesOn says of each FleetCluster why it is not ready; nothing where it is.
func statesOn(ctx context.Context, s Side) (map[types.NamespacedName]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all := &v1alpha1.FleetClusterList{}
	if err := s.Client.List(ctx, all); err != nil {
		return nil, err
	}
	out := map[types.NamespacedName]string{}
	for i := range all.Items {
		c := &all.Items[i]
		why := ""
		ready := apimeta.FindStatusCondition(c.Status.Conditions, "Ready")
		switch {
		case ready == nil || c.Status.Incarnation == "":
			why = "it has not joined yet"
		case ready.Status != metav1.ConditionTrue:
			why = ready.Message
		}
		out[client.ObjectKeyFromObject(c)] = why
	}
	return out, nil
}

// GiveUp undoes a pivot that has not come to what cannot be undone: what was copied goes from the target, and both engines go on.
func GiveUp(ctx context.Context, o Options) error {
	stage, err := o.begun(ctx)
	if err != nil {
		return err
	}
	if stage == StageMoving || stage == StageMoved {
		return &failure.Error{Op: "give up the pivot to", Object: "FleetCluster/" + o.Cluster.String(), Kind: failure.Refused,
			Err: errors.New("what belongs to Cluster API is on its way"), Remedy: "call it without --abort, and it goes on"}
	}
	namespaces, err := fleets(ctx, o.From)
	if err != nil {
		return err
	}
	kinds := carriedKinds()
	slices.Reverse(kinds)
	for _, k := range kinds {
		for _, namespace := range namespaces {
			all, err := k.list(ctx, o.To, namespace)
			if err != nil {
				return err
			}
			for i := range all {
				u := &all[i]
				if u.GetAnnotations()[carriedFrom] != string(o.From.ID) {
					continue
				}
				uid := u.GetUID()
				if err := client.IgnoreNotFound(o.To.Client.Delete(ctx, u, client.Preconditions{UID: &uid})); err != nil {
					return wrap(err, "take back %s", object.IDOf(u))
				}
			}
		}
	}
	way := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: markKey.Namespace, Name: markKey.Name}}
	return errors.Join(unmark(ctx, o.To), unmark(ctx, o.From), wrap(client.IgnoreNotFound(o.From.Client.Delete(ctx, way)), "forget the way to the target"))
}
