package observe

import "time"

// fight counts how often an object had to be healed lately.
type fight struct {
	rounds int
	last   time.Time
}

// The healing of a contested object: at once for the first rounds, then backing
// off twofold to the longest pause; forgotten after a quiet time.
const (
	fightFreeRounds = 5
	fightFirstPause = time.Second
	fightLastPause  = time.Minute
	fightForgotten  = 10 * time.Minute
)

// next returns how long to wait from now, and the state after a healing when
// that is zero.
func (f fight) next(now time.Time) (fight, time.Duration) {
	if now.Sub(f.last) > fightForgotten {
		f = fight{}
	}
	if wait := f.last.Add(f.pause()).Sub(now); wait > 0 && f.rounds > 0 {
		return f, wait
	}
	return fight{rounds: f.rounds + 1, last: now}, 0
}

func (f fight) pause() time.Duration {
	if f.rounds < fightFreeRounds {
		return 0
	}
	pause := fightFirstPause << min(f.rounds-fightFreeRounds, 10)
	return min(pause, fightLastPause)
}

// Contested reports whether the object has had to be healed more often than a
// person's edits explain.
func (l *Ledger) contested(f fight) bool { return f.rounds > fightFreeRounds }
