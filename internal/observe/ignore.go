package observe

import (
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// ignoredOf holds, for the objects of a unit that have such, the fields that are left
// to others. Who owns these makes no difference to the hash of what we own.
type ignoredOf map[object.ID]*ignore.Paths

// ignoredIn is nil where nothing is left to others, which is nearly always.
func ignoredIn(wants []plan.Want) ignoredOf {
	var out ignoredOf
	for _, w := range wants {
		if w.Ignored == nil {
			continue
		}
		if out == nil {
			out = ignoredOf{}
		}
		out[w.ID] = w.Ignored
	}
	return out
}

// leave notes what the unit leaves to others from now on; the lock is held. An object
// that was applied before this was known is planned for anew because its digest
// differs; of one that an earlier process applied the field set is still at hand.
func (l *Ledger) leave(unit types.NamespacedName, now ignoredOf) {
	before := l.ignored[unit]
	if maps.Equal(before, now) {
		return
	}
	if now == nil {
		delete(l.ignored, unit)
	} else {
		l.ignored[unit] = now
	}
	for _, of := range []ignoredOf{before, now} {
		for id := range of {
			if r, ok := l.records[id]; ok && r.Owner == unit && len(r.fields) > 0 {
				r.own = ownershipOf(l.seed, now[id].Cut(r.fields))
			}
		}
	}
}

// ownershipOf hashes the fields that we own of an object.
func (l *Ledger) ownershipOf(id object.ID, r *Record) ownership {
	l.mu.RLock()
	ignored := l.ignored[r.Owner][id]
	l.mu.RUnlock()
	return ownershipOf(l.seed, ignored.Cut(r.fields))
}
