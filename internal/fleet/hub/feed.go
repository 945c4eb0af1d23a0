package hub

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// namespaces enqueues the namespace of an object, so that many changes are one survey.
func namespaces() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace()}}}
	})
}

// placementsOf enqueues the Placements that a reporting cluster has.
func (h *hub) placementsOf() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		var all []reconcile.Request
		for _, name := range h.rooms.of(o.GetNamespace()).placementsOf(o.GetName()) {
			all = append(all, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}})
		}
		return all
	})
}

// onUpdate lets updates through for which differ is true, and everything else.
func onUpdate[T client.Object](differ func(before, after T) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(T)
		after, also := e.ObjectNew.(T)
		return ok && also && differ(before, after)
	}}
}

// intended: somebody changed what is wanted, or approved something.
func intended() predicate.Predicate {
	return onUpdate(func(before, after client.Object) bool {
		return before.GetGeneration() != after.GetGeneration() || !equality.Semantic.DeepEqual(before.GetAnnotations(), after.GetAnnotations())
	})
}

// relabelled: Placements may select other clusters now.
func relabelled() predicate.Predicate {
	return onUpdate(func(before, after client.Object) bool {
		return !equality.Semantic.DeepEqual(before.GetLabels(), after.GetLabels()) || before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
	})
}

// assignable: what a cluster's assignment is made from has changed.
func assignable() predicate.Predicate {
	return predicate.Or(intended(), relabelled(), onUpdate(func(before, after *v1alpha1.FleetCluster) bool {
		return before.Status.Incarnation != after.Status.Incarnation || !slices.Equal(before.Finalizers, after.Finalizers) ||
			unreachable(before) != unreachable(after)
	}))
}

// respecified: somebody changed an assignment, or deleted it.
func respecified() predicate.Predicate {
	return predicate.And(predicate.GenerationChangedPredicate{}, predicate.Funcs{CreateFunc: func(event.CreateEvent) bool { return false }})
}

// left: a member has left, or its report is gone.
func left() predicate.Predicate {
	return predicate.And(predicate.Funcs{CreateFunc: func(event.CreateEvent) bool { return false }},
		onUpdate(func(before, after *v1alpha1.ClusterReport) bool { return before.Status.Left != after.Status.Left }))
}

// moments remembers when something was done, for each key.
type moments struct {
	mu  sync.Mutex
	all map[types.NamespacedName]time.Time // guarded by mu
}

func newMoments() *moments { return &moments{all: map[types.NamespacedName]time.Time{}} }

// left returns how much is left of a period since the moment of the key; zero without one.
func (m *moments) left(key types.NamespacedName, now time.Time, period time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.all[key]
	if !ok {
		return 0
	}
	return max(0, period-now.Sub(at))
}

// mark sets the moment of the key.
func (m *moments) mark(key types.NamespacedName, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[key] = now
}

// begin sets the moment of the key where it has none.
func (m *moments) begin(key types.NamespacedName, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.all[key]; !ok {
		m.all[key] = now
	}
}

func (m *moments) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, key)
}
