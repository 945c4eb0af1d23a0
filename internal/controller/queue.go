package controller

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Priorities of a unit in the queue, besides controller-runtime's own: what
// people wait for goes first.
const (
	// urgent: an object drifted, a build has changed, somebody asked.
	urgent = 20
	// soon: something that the unit waits for happened.
	soon = 10
	// routine: only the revision moved.
	routine = 0
	// stranded: all that the unit can do is to tell that its cluster does not answer.
	stranded = -1
)

// feed puts units into a controller's queue from anywhere in the process. It is
// a source.Source, so that the controller hands it its queue.
type feed struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request] // guarded by mu
}

var _ source.Source = (*feed)(nil)

// Start implements source.Source.
func (f *feed) Start(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = q
	return nil
}

// add enqueues the unit at once. Before the controller has started it does
// nothing: every unit is enqueued at the start anyway.
func (f *feed) add(unit types.NamespacedName, priority int) {
	f.mu.Lock()
	q := f.queue
	f.mu.Unlock()
	if q == nil {
		return
	}
	request := reconcile.Request{NamespacedName: unit}
	if p, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		p.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(priority)}, request)
		return
	}
	q.Add(request)
}
