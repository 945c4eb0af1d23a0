package controller

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// enter lets a unit work on the cluster that it is delivered to. Of another cluster
// than the hub there are only so many at one time: without a place ok is false, and
// the unit is woken when there is one. leave must be called when it is done.
func (t *targets) enter(d *delivery, unit types.NamespacedName) (leave func(), ok bool) {
	l := d.access.link
	if l == nil {
		return func() {}, true
	}
	if !t.bulkhead.enter(l, unit) {
		return nil, false
	}
	watched, stop := context.WithCancel(context.Background())
	go l.suspect(watched)
	return func() {
		stop()
		t.bulkhead.leave(l)
	}, true
}

// ran is called after each run of a unit, whatever came of it.
func (t *targets) ran(unit types.NamespacedName) { t.bulkhead.passOn(unit) }

// placeComes is when a unit that found no place looks again by itself. It is woken
// for one sooner.
const placeComes = 30 * time.Second

// suspect asks the keeper to look at the cluster while somebody waits for it and it
// says nothing: what hangs need not be a request that has a deadline.
func (l *link) suspect(ctx context.Context) {
	every := l.targets.remote.patience / 2
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if l.remote.SilentFor(l.clock.Now()) >= every {
				l.poke()
			}
		}
	}
}
