package link_test

import (
	"context"
	"sync"
	"time"
)

// hiccup is the most that counts of a time in which this process did not run.
const hiccup = 250 * time.Millisecond

// stopwatch is the clock of a hub: it goes while this process runs, so that nobody is lost because the machine stood still. What
// it is about would not have renewed anything meanwhile either.
type stopwatch struct {
	mu       sync.Mutex
	at, last time.Time // guarded by mu; the time that it shows, and when that was on the machine's
}

// newStopwatch returns a clock that goes until ctx is done.
func newStopwatch(ctx context.Context) *stopwatch {
	now := time.Now()
	w := &stopwatch{at: now, last: now}
	go func() {
		t := time.NewTicker(hiccup / 5)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				w.Now()
			}
		}
	}()
	return w
}

// Now implements clock.PassiveClock.
func (w *stopwatch) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.at, w.last = w.at.Add(min(now.Sub(w.last), hiccup)), now
	return w.at
}

// Since implements clock.PassiveClock.
func (w *stopwatch) Since(t time.Time) time.Duration { return w.Now().Sub(t) }
