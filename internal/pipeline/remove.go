package pipeline

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/plan"
)

// Remove deletes what a unit delivered, with the same proof as pruning, and
// returns what is deleted but not gone yet.
func (p *Pipeline) Remove(ctx context.Context, unit types.NamespacedName, t Target, inventory []plan.Entry) ([]plan.Entry, error) {
	t.Ledger.Want(unit, nil)
	if err := follow(ctx, t, nil, inventory); err != nil {
		return inventory, at(Prune, err)
	}
	var deletions []plan.Action
	var going []plan.Entry
	for _, e := range inventory {
		a := plan.Removal(unit, e, t.Ledger)
		if a.Verb == plan.Delete {
			deletions = append(deletions, a)
		} else if known, there := t.Ledger.Known(e.ID); there && known.Owner == unit && known.Terminating {
			going = append(going, e)
		}
	}
	if err := t.Applier.Prune(ctx, deletions).Err(); err != nil {
		return inventory, at(Prune, err)
	}
	for _, a := range deletions {
		going = append(going, plan.Entry{ID: a.ID, Version: a.Version})
	}
	return slices.DeleteFunc(going, func(e plan.Entry) bool {
		_, there := t.Ledger.Known(e.ID)
		return !there
	}), nil
}
