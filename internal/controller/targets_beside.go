package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
)

// wantedBeside reports whether a unit of the other kind, delivered to the same cluster, gets the
// object from this one: each kind has a ledger of its own, and neither deletes what moved
// to the other.
func (s *station) wantedBeside(id object.ID, giver types.NamespacedName) bool {
	other := s.targets.beside
	if other == nil {
		return false
	}
	if s.hub {
		return other.hub.ledger.WantedFrom(id, giver)
	}
	s.targets.mu.Lock()
	var keys []linkKey
	for _, l := range s.links {
		keys = append(keys, l.key)
	}
	s.targets.mu.Unlock()
	other.mu.Lock()
	there := other.stations[s.key]
	keys = slices.DeleteFunc(keys, func(k linkKey) bool { l := other.links[k]; return l != nil && l.access != nil })
	other.mu.Unlock()
	return there != nil && there.ledger.WantedFrom(id, giver) || other.recorded(keys, id)
}

// recorded reports whether the inventory of a unit that goes by one of these links, over which
// nobody reached the cluster yet, names the object.
func (t *targets) recorded(keys []linkKey, id object.ID) bool {
	if len(keys) == 0 {
		return false
	}
	units, err := t.units(t.remote.life)
	if err != nil {
		return true // nothing is deleted on a guess
	}
	return slices.ContainsFunc(units, func(a address) bool {
		if a.kubeConfig == nil {
			return false
		}
		key, err := linkKeyOf(a)
		return err == nil && slices.Contains(keys, key) && slices.Contains(a.inventory(), id)
	})
}
