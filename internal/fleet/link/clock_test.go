package link_test

import (
	"sync"
	"time"
)

// stopwatch is the clock of a hub: that of the machine until it is held, and from then on one that goes only when it is moved.
type stopwatch struct {
	mu   sync.Mutex
	held time.Time // guarded by mu; zero as long as it goes by itself
}

// Now implements clock.PassiveClock.
func (w *stopwatch) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held.IsZero() {
		return time.Now()
	}
	return w.held
}

// Since implements clock.PassiveClock.
func (w *stopwatch) Since(t time.Time) time.Duration { return w.Now().Sub(t) }

// move holds the clock, and moves it on.
func (w *stopwatch) move(by time.Duration) {
	now := w.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = now.Add(by)
}
