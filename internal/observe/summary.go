package observe

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// Health sums up the health of several objects.
type Health struct {
	// Waiting are the objects that are not ready yet, Failed those that will not
	// become ready by themselves.
	Waiting, Failed []Item
}

// Item is one object that is not ready.
type Item struct {
	ID      object.ID
	Verdict health.Verdict
}

// Ready reports whether all objects are healthy.
func (h Health) Ready() bool { return len(h.Waiting) == 0 && len(h.Failed) == 0 }

// Health sums up the health of the objects, in the words of the unit. One that is
// not known is waited for.
func (l *Ledger) Health(unit types.NamespacedName, ids []object.ID) Health {
	var h Health
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, id := range ids {
		v := l.verdict(unit, id)
		switch v.Status {
		case health.Current:
		case health.Failed:
			h.Failed = append(h.Failed, Item{ID: id, Verdict: v})
		default:
			h.Waiting = append(h.Waiting, Item{ID: id, Verdict: v})
		}
	}
	return h
}

// verdict is the object's health, in the words of the unit; the lock is held.
func (l *Ledger) verdict(unit types.NamespacedName, id object.ID) health.Verdict {
	r, ok := l.records[id]
	f := l.foreign[l.keyOf(id, unit)]
	switch {
	case ok && r.UID != "" && (r.Owner == unit || f == nil):
		return r.Verdict
	case f != nil && f.known:
		return f.verdict
	}
	return health.Verdict{Status: health.InProgress, Message: "does not exist yet"}
}
