package observe

import (
	"time"

	"github.com/bowline-dev/bowline/internal/object"
)

// fight counts how often an object had to be healed lately.
type fight struct {
	rounds int
	last   time.Time
	// open: the object was changed or removed, and not healed since.
	open bool
}

// The healing of a contested object: at once for the first rounds, then backing
// off twofold to the longest pause; forgotten after a quiet time.
const (
	fightFreeRounds = 5
	fightFirstPause = time.Second
	fightLastPause  = time.Minute
	fightForgotten  = 10 * time.Minute
)

// wait returns how long the next healing has to wait from now.
func (f fight) wait(now time.Time) time.Duration {
	if now.Sub(f.last) > fightForgotten {
		return 0
	}
	return max(0, f.last.Add(f.pause()).Sub(now))
}

// healed returns the state after a healing.
func (f fight) healed(now time.Time) fight {
	if now.Sub(f.last) > fightForgotten {
		f = fight{}
	}
	return fight{rounds: f.rounds + 1, last: now}
}

func (f fight) pause() time.Duration {
	if f.rounds < fightFreeRounds {
		return 0
	}
	pause := fightFirstPause << min(f.rounds-fightFreeRounds, 10)
	return min(pause, fightLastPause)
}

// attacked notes that somebody changed or removed an object that a unit wants.
// The lock is held.
func (l *Ledger) attacked(id object.ID) {
	if len(l.wanted[id]) == 0 {
		return
	}
	f := l.fights[id]
	f.open = true
	l.fights[id] = f
}

// defended notes that the object was applied. The lock is held.
func (l *Ledger) defended(id object.ID) {
	if f, ok := l.fights[id]; ok && f.open {
		l.fights[id] = f.healed(l.clock.Now())
	}
}

// HealAfter implements plan.Ledger. An object that somebody keeps changing is
// healed at once a few times and then ever more rarely.
func (l *Ledger) HealAfter(id object.ID) time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.fights[id].wait(l.clock.Now())
}
