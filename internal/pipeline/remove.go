package pipeline

import (
	"context"

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
	for _, e := range inventory {
		if a := plan.Removal(unit, e, t.Ledger); a.Verb == plan.Delete {
			deletions = append(deletions, a)
		}
	}
	if err := t.Applier.Prune(ctx, deletions).Err(); err != nil {
		return inventory, at(Prune, err)
	}
	var remaining []plan.Entry
	for _, a := range deletions {
		if _, there := t.Ledger.Known(a.ID); there {
			remaining = append(remaining, plan.Entry{ID: a.ID, Version: a.Version})
		}
	}
	return remaining, nil
}
