// Package feed is the room of what is put into the queues of controllers from elsewhere in the process: something happened in
// memory that no API server tells of.
package feed

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Feed puts requests into a controller's queue from anywhere. It is a source.Source, so that the controller hands it
// its queue. The zero value is ready. Before the controller has started nothing is enqueued, and nothing has to be: everything
// is enqueued at the start.
type Feed struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request] // guarded by mu
}

var _ source.Source = (*Feed)(nil)

// Start implements source.Source.
func (f *Feed) Start(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = q
	return nil
}

// Add enqueues a request at once.
func (f *Feed) Add(key types.NamespacedName) {
	if q := f.started(); q != nil {
		q.Add(reconcile.Request{NamespacedName: key})
	}
}

// AddAt enqueues a request with a priority, where the queue knows such; the highest goes first, and that of what has none is 0.
func (f *Feed) AddAt(key types.NamespacedName, priority int) {
	q := f.started()
	if p, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		p.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(priority)}, reconcile.Request{NamespacedName: key})
		return
	}
	f.Add(key)
}

// AddAfter enqueues a request after a while.
func (f *Feed) AddAfter(key types.NamespacedName, after time.Duration) {
	if q := f.started(); q != nil {
		q.AddAfter(reconcile.Request{NamespacedName: key}, after)
	}
}

func (f *Feed) started() workqueue.TypedRateLimitingInterface[reconcile.Request] {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queue
}
