package controller

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// bulkhead bounds how many workers are with other clusters at one time, for each
// cluster, for each tenant and in all: however many hang, some are left for
// everybody else.
type bulkhead struct {
	each, all int
	wake      func(unit types.NamespacedName, retry bool)

	mu     sync.Mutex
	inside map[*link]int // guarded by mu
	// tenants counts those with the clusters of one tenant; guarded by mu.
	tenants map[string]int
	sum     int      // guarded by mu
	queue   []waiter // guarded by mu; in the order in which they came
	// called are the units that were woken for a place at a cluster and have not come yet.
	called map[types.NamespacedName]*link // guarded by mu
}

type waiter struct {
	link *link
	unit types.NamespacedName
}

// newBulkhead divides the workers: a cluster gets at most a quarter, and so do all of
// a tenant's, all together a half.
func newBulkhead(workers int, wake func(types.NamespacedName, bool)) *bulkhead {
	return &bulkhead{each: max(1, workers/4), all: max(1, workers/2), wake: wake, inside: map[*link]int{}, tenants: map[string]int{}, called: map[types.NamespacedName]*link{}}
}

// enter takes a place, and reports whether there was one. Otherwise the unit is woken
// when there is. leave must be called once after it was let in.
func (b *bulkhead) enter(l *link, unit types.NamespacedName) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.called[unit] == l {
		delete(b.called, unit)
	}
	if b.room(l) {
		b.inside[l]++
		b.tenants[l.tenant]++
		b.sum++
		return true
	}
	if w := (waiter{l, unit}); !slices.Contains(b.queue, w) {
		b.queue = append(b.queue, w)
	}
	return false
}

func (b *bulkhead) room(l *link) bool {
	return b.inside[l] < b.each && b.sum < b.all && (l.tenant == "" || b.tenants[l.tenant] < b.each)
}

// leave gives the place back, and wakes who may have it.
func (b *bulkhead) leave(l *link) {
	b.mu.Lock()
	b.sum--
	if b.inside[l]--; b.inside[l] == 0 {
		delete(b.inside, l)
	}
	if b.tenants[l.tenant]--; b.tenants[l.tenant] == 0 {
		delete(b.tenants, l.tenant)
	}
	b.callNext()
}

// passOn is called when a unit has run: if it was woken for a place and did not take it,
// because it had nothing to do there, its cluster is away or it has another by now, the next one is.
func (b *bulkhead) passOn(unit types.NamespacedName) {
	b.mu.Lock()
	if b.called[unit] == nil {
		b.mu.Unlock()
		return
	}
	delete(b.called, unit)
	b.callNext()
}

// callNext wakes the first who may have a place. The lock is held, and given up.
func (b *bulkhead) callNext() {
	i := slices.IndexFunc(b.queue, func(w waiter) bool { return b.room(w.link) })
	if i < 0 {
		b.mu.Unlock()
		return
	}
	next := b.queue[i]
	b.queue = slices.Delete(b.queue, i, i+1)
	b.called[next.unit] = next.link
	b.mu.Unlock()
	b.wake(next.unit, false)
}
