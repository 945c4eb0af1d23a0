package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// Neighbours returns the units that are delivered from the same source as this
// one, as they are now. It is asked only when an object may change hands.
type Neighbours func(context.Context) []Neighbour

// Neighbour is a unit of the same source.
type Neighbour struct {
	Unit
	// Err says why it cannot be built now, whatever the source holds; then only the
	// name of the unit counts.
	Err error
}

// ahead is what a unit will want at an artifact that it has not come to yet.
type ahead struct {
	mu     sync.Mutex // held while building, so that it is built once for all who ask
	inputs string
	wants  map[object.ID]bool
	err    error
}

// foresee finds out what the neighbours want at this artifact, if the plan
// deletes something or finds something taken. A commit that moves an object from
// one unit to another is looked at by one of them first: asking only what the
// other wanted so far would delete the object, or leave each waiting for the other.
func (p *Pipeline) foresee(ctx context.Context, u Unit, t Target, a source.Artifact, made *plan.Plan) *plan.Foresight {
	if u.Neighbours == nil || !made.MovesObjects() {
		return nil
	}
	f := &plan.Foresight{Taken: map[object.ID]bool{}, Given: map[object.ID]bool{}}
	for _, n := range u.Neighbours(ctx) {
		if n.Name == u.Name || n.Err == nil && p.memoryOf(n.Name).holds(n.Unit, a) {
			continue // what it wants is in the ledger
		}
		wants, err := p.wantsAhead(ctx, n, t, a)
		if err != nil {
			f.Unknown = fmt.Sprintf("Kustomization %s of the same source cannot be built: %v", n.Name, n.Conceal(err))
			continue
		}
		for id := range wants {
			f.Taken[id] = true
		}
		for _, c := range made.Conflicts {
			if c.Owner == n.Name && !wants[c.ID] {
				f.Given[c.ID] = true
			}
		}
	}
	return f
}

// wantsAhead builds a unit only to learn what it wants, once per artifact.
func (p *Pipeline) wantsAhead(ctx context.Context, u Neighbour, t Target, a source.Artifact) (map[object.ID]bool, error) {
	if u.Err != nil {
		return nil, u.Err
	}
	w := &p.memoryOf(u.Name).ahead
	w.mu.Lock()
	defer w.mu.Unlock()
	if inputs := u.inputs() + " " + a.Digest; w.inputs != inputs || w.err != nil && !failure.Terminal(w.err) {
		d, _, err := p.make(ctx, u.Unit, t, a.Tree)
		w.inputs, w.wants, w.err = inputs, make(map[object.ID]bool, len(d.wants)), err
		for _, want := range d.wants {
			w.wants[want.ID] = true
		}
	}
	return w.wants, w.err
}
