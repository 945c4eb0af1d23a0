package enroll

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// sights remembers for each cluster what it was like when all was found to be in order.
type sights struct {
	mu  sync.Mutex
	all map[types.NamespacedName]string // guarded by mu
	// since is when it was first tried to take the agent of a cluster away.
	since map[types.NamespacedName]time.Time // guarded by mu
}

func newSights() *sights {
	return &sights{all: map[types.NamespacedName]string{}, since: map[types.NamespacedName]time.Time{}}
}

func (s *sights) is(key types.NamespacedName, sight string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[key] == sight
}

func (s *sights) set(key types.NamespacedName, sight string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[key] = sight
}

// began returns when it was first asked for a cluster.
func (s *sights) began(key types.NamespacedName, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since[key].IsZero() {
		s.since[key] = now
	}
	return s.since[key]
}

func (s *sights) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, key)
	delete(s.since, key)
}

// sightOf is all that has to change before a member that has joined is looked at again. That a cluster was built anew under its
// name shows in the first transition of Provisioned, or in an agent that is not heard of any more.
func sightOf(cluster *v1alpha1.FleetCluster, digest string) string {
	provisioned := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.ProvisionedCondition)
	return fmt.Sprint(cluster.UID, " ", cluster.Status.Incarnation, " ", digest, " ", cluster.Annotations[v1alpha1.AgentAnnotation], " ",
		provisioned.LastTransitionTime.Unix(), " ", cluster.Status.Endpoint, " ", cluster.Spec.KubeConfig, " ", unreachable(cluster), " ", isJoined(cluster))
}

func provisioned(cluster *v1alpha1.FleetCluster) bool {
	return apimeta.IsStatusConditionTrue(cluster.Status.Conditions, v1alpha1.ProvisionedCondition)
}

// unreachable reports whether the agent is not heard of.
func unreachable(cluster *v1alpha1.FleetCluster) bool {
	return apimeta.IsStatusConditionFalse(cluster.Status.Conditions, v1alpha1.ReachableCondition)
}

// concerned lets through what may mean that there is something to do. Reports are not among it.
func concerned() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.FleetCluster)
		after, also := e.ObjectNew.(*v1alpha1.FleetCluster)
		return ok && also && !equality.Semantic.DeepEqual(concern(before), concern(after))
	}}
}

func concern(c *v1alpha1.FleetCluster) []any {
	all := []any{string(c.UID), c.Generation, c.Annotations, c.Finalizers, c.DeletionTimestamp.IsZero(), c.Status.Incarnation, c.Status.Endpoint}
	if c.Spec.Join != nil {
		all = append(all, c.Status.AgentVersion, joinedOf(c).Message) // who is let in by hand is told when the agent is old
	}
	for _, t := range []string{v1alpha1.ProvisionedCondition, v1alpha1.JoinedCondition, v1alpha1.ReachableCondition} {
		if found := apimeta.FindStatusCondition(c.Status.Conditions, t); found != nil {
			all = append(all, metav1.Condition{Type: t, Status: found.Status, Reason: found.Reason, LastTransitionTime: found.LastTransitionTime})
		}
	}
	return all
}
