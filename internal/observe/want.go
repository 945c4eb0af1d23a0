package observe

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// wantedBy is the units that want an object, in the order in which they came.
// Nearly always it is one.
type wantedBy []types.NamespacedName

// Want tells which objects the unit wants from now on. Units that wait for an
// object which it gives up are notified.
func (l *Ledger) Want(unit types.NamespacedName, wants []plan.Want) {
	ignored := ignoredIn(wants)
	l.mu.Lock()
	delete(l.doubtful, unit)
	l.leave(unit, ignored)
	changes := l.content(unit, wants)
	before := l.wantsOf[unit]
	if slices.EqualFunc(before, wants, func(id object.ID, w plan.Want) bool { return id == w.ID }) {
		l.mu.Unlock()
		for _, c := range changes {
			l.notify(c)
		}
		return
	}
	now := make([]object.ID, 0, len(wants))
	for _, w := range wants {
		now = append(now, w.ID)
	}
	changes = append(changes, l.rewant(unit, before, now)...)
	l.mu.Unlock()
	for _, c := range changes {
		l.notify(c)
	}
}

// content notes which objects the unit only wants to be there, whoever delivers them; the lock is held. It returns a change for every other
// unit that wants one of those that it wanted as its own until now.
func (l *Ledger) content(unit types.NamespacedName, wants []plan.Want) (changes []Change) {
	var now map[object.ID]bool
	for i := range wants {
		if wants[i].Mode != plan.IfNotPresent {
			continue
		}
		id := wants[i].ID
		if now == nil {
			now = map[object.ID]bool{}
		}
		now[id] = true
		if l.contents[unit][id] {
			continue
		}
		for _, other := range l.wanted[id] {
			if other != unit {
				changes = append(changes, Change{Owner: other, ID: id, Drift: true})
			}
		}
	}
	if now == nil {
		delete(l.contents, unit)
	} else {
		l.contents[unit] = now
	}
	return changes
}

// Claim enters the objects of an inventory as wanted, at the start, before any unit
// is built. Where others than the engine may have written the inventory, proven says
// that only those count whose labels on the cluster name the unit.
func (l *Ledger) Claim(unit types.NamespacedName, ids []object.ID, proven bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rewant(unit, l.wantsOf[unit], ids)
	if proven {
		l.doubtful[unit] = true
	}
}

// rewant replaces what a unit wants; the lock is held. It returns a change for
// every unit that waited for what was given up.
func (l *Ledger) rewant(unit types.NamespacedName, before, now []object.ID) []Change {
	keep := make(map[object.ID]bool, len(now))
	for _, id := range now {
		keep[id] = true
		if !slices.Contains(l.wanted[id], unit) {
			l.wanted[id] = append(l.wanted[id], unit)
		}
	}
	var changes []Change
	for _, id := range before {
		if keep[id] {
			continue
		}
		rest := slices.DeleteFunc(l.wanted[id], func(u types.NamespacedName) bool { return u == unit })
		if len(rest) == 0 {
			delete(l.wanted, id)
			delete(l.fights, id)
			continue
		}
		l.wanted[id] = rest
		for _, other := range rest {
			changes = append(changes, Change{Owner: other, ID: id, Drift: true})
		}
	}
	if len(now) == 0 {
		delete(l.wantsOf, unit)
	} else {
		l.wantsOf[unit] = now
	}
	return changes
}

// Claimant returns the unit that may deliver the object: the one that does so
// now, if it still wants to, and else the one that wanted it first. A unit that
// yields, or that is content with whatever is there, may only where no other wants it.
func (l *Ledger) Claimant(id object.ID) (types.NamespacedName, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	units := l.claims(id)
	if len(units) == 0 {
		return types.NamespacedName{}, false
	}
	if r, ok := l.records[id]; ok && slices.Contains(units, r.Owner) {
		return r.Owner, true
	}
	return units[0], true
}

// claims returns the units whose wanting the object counts. The lock is held.
func (l *Ledger) claims(id object.ID) wantedBy {
	units := l.wanted[id]
	if len(l.doubtful) > 0 && slices.ContainsFunc(units, func(u types.NamespacedName) bool { return !l.counts(id, u) }) {
		units = slices.DeleteFunc(slices.Clone(units), func(u types.NamespacedName) bool { return !l.counts(id, u) })
	}
	if len(units) < 2 {
		return units
	}
	if len(l.contents) > 0 {
		content := func(u types.NamespacedName) bool { return l.contents[u][id] }
		if own := slices.DeleteFunc(slices.Clone(units), content); len(own) > 0 {
			units = own
		}
	}
	if len(units) < 2 || l.yields == nil {
		return units
	}
	firm := slices.DeleteFunc(slices.Clone(units), l.yields)
	if len(firm) == 0 {
		return units
	}
	return firm
}

// counts reports whether it counts that the unit wants the object. The lock is held.
func (l *Ledger) counts(id object.ID, unit types.NamespacedName) bool {
	if !l.doubtful[unit] {
		return true
	}
	r, ok := l.records[id]
	return ok && r.UID != "" && r.Owner == unit
}

// WantedByOther reports whether a unit other than this one wants the object, so that
// it gets it from this one. A unit that yields gets nothing from one that does not: it
// may have the right to ask for an object, and not to all that this one grants.
func (l *Ledger) WantedByOther(id object.ID, unit types.NamespacedName) bool {
	return l.gets(id, unit, false) || l.beside != nil && l.beside(id, unit)
}

// WantedFrom reports whether any unit of this ledger gets the object from a unit of another kind,
// which may have the same name.
func (l *Ledger) WantedFrom(id object.ID, giver types.NamespacedName) bool {
	return l.gets(id, giver, true)
}

// gets reports whether a unit gets the object from the giver; also says that one of the giver's
// name may.
func (l *Ledger) gets(id object.ID, giver types.NamespacedName, also bool) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if u, ok := l.expected[id]; ok && (also || u != giver) && l.mayTake(u, giver) {
		return true
	}
	return slices.ContainsFunc(l.wanted[id], func(u types.NamespacedName) bool {
		return (also || u != giver) && l.counts(id, u) && l.mayTake(u, giver)
	})
}

// mayTake reports whether a unit gets objects from another one. The lock is held.
func (l *Ledger) mayTake(taker, giver types.NamespacedName) bool {
	return l.yields == nil || !l.yields(taker) || l.yields(giver)
}

// Expect says whose objects will be, in place of all that was said before. Whoever makes units from something that names their
// objects knows it before they are built, and what one of them gives up is not deleted meanwhile that another one is about to take.
func (l *Ledger) Expect(owners map[object.ID]types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected = owners
}
