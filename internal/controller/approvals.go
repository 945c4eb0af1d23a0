package controller

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
)

// heldPlans are the deletions that wait for approval, of all units of both kinds, and the units of which
// something is healed that somebody else keeps changing. It is as new as the last run of each unit, and made anew by the first
// after a start.
type heldPlans struct {
	mu        sync.Mutex
	plans     map[user]heldPlan // guarded by mu
	contested map[user]bool     // guarded by mu
	// changed is told of a plan that has come to wait, and of a unit that is contested, or not any more. It is set before
	// the engine runs.
	changed func()
}

// heldPlan is one that waits.
type heldPlan struct {
	unit user
	// digest is that of the deletions, with which they are approved.
	digest string
	// message names what would go, and why it waits.
	message string
}

func newHeldPlans() *heldPlans {
	return &heldPlans{plans: map[user]heldPlan{}, contested: map[user]bool{}, changed: func() {}}
}

// note takes what a run of a unit came to.
func (h *heldPlans) note(unit user, p *plan.Plan) {
	h.mu.Lock()
	old, contested := h.plans[unit].digest, h.contested[unit]
	delete(h.plans, unit)
	delete(h.contested, unit)
	if len(p.Held) > 0 {
		h.plans[unit] = heldPlan{unit: unit, digest: p.HeldDigest, message: report.HeldWhat(p)}
	}
	if p.HealAfter != 0 {
		h.contested[unit] = true
	}
	h.mu.Unlock()
	if len(p.Held) > 0 && old != p.HeldDigest || contested != (p.HealAfter != 0) {
		h.changed()
	}
}

func (h *heldPlans) forget(unit user) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.plans, unit)
	delete(h.contested, unit)
}

// drifted returns how many units are contested.
func (h *heldPlans) drifted() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.contested)
}

// all returns what waits, in the order of kind, namespace and name.
func (h *heldPlans) all() []heldPlan {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.plans), func(a, b heldPlan) int {
		return cmp.Or(cmp.Compare(a.unit.Kind, b.unit.Kind), cmp.Compare(a.unit.Namespace, b.unit.Namespace), cmp.Compare(a.unit.Name, b.unit.Name))
	})
}
