package plan

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Input is all that a plan is made from.
type Input struct {
	Unit  types.NamespacedName
	Wants []Want
	// Objects are the desired objects, or nil when they are not at hand. A plan
	// made without them leaves Unproven objects to a second plan that has them.
	Objects   Objects
	Inventory []Entry
	Policy    Policy
	// Recheck asks for a dry run of the objects for which only that can tell.
	Recheck bool
	// Foresight may be nil.
	Foresight *Foresight
}

// Foresight is what other units will want that the ledger does not know yet,
// because they have not come to the newest state of their source.
type Foresight struct {
	// Taken are objects that another unit will want.
	Taken map[object.ID]bool
	// Given are objects that the unit which has them will want no longer.
	Given map[object.ID]bool
	// Unknown says, when it is not empty, why it is not known what one of the
	// units will want. Nothing is deleted then.
	Unknown string
}

func (f *Foresight) takes(id object.ID) bool { return f != nil && f.Taken[id] }
func (f *Foresight) gives(id object.ID) bool { return f != nil && f.Given[id] }

// Policy is what a unit allows.
type Policy struct {
	Prune  bool
	Budget Budget
	// Approved is the digest of the held deletions that somebody approved.
	Approved string
	// HealsAll says that drift is not left to others either where an object is lax.
	HealsAll bool
}

// Make plans. It asks the prober only for objects that the ledger cannot
// settle. The error is a question that the API server did not answer.
func Make(ctx context.Context, in Input, ledger Ledger, prober Prober) (*Plan, error) {
	p := &Plan{}
	m := maker{in: in, ledger: ledger, prober: prober, plan: p}
	for _, want := range in.Wants {
		if err := m.want(ctx, want); err != nil {
			return nil, err
		}
	}
	// What another unit has is not applied here, so the plan cannot succeed as a
	// whole, and only such a plan deletes.
	switch {
	case len(p.Conflicts) > 0:
	case in.Policy.Prune:
		m.prune()
	default:
		m.release()
	}
	p.Digest = digestOf(p.Actions)
	return p, nil
}

type maker struct {
	in     Input
	ledger Ledger
	prober Prober
	plan   *Plan
}

func (m *maker) add(verb Verb, w Want, uid types.UID, reason string) {
	m.plan.Actions = append(m.plan.Actions, Action{
		Verb: verb, ID: w.ID, Version: w.Version, Mode: w.Mode, Replace: w.Replace, Ignored: w.Ignored, Digest: w.Digest, UID: uid, Reason: reason,
	})
}

// want decides on one desired object.
func (m *maker) want(ctx context.Context, w Want) error {
	known, there := m.ledger.Known(w.ID)
	if w.Mode == Ignore {
		m.add(Skip, w, "", "annotated to be ignored")
		return nil
	}
	// What only has to be there may be anybody's.
	if claimant, ok := m.ledger.Claimant(w.ID); ok && claimant != m.in.Unit && !m.in.Foresight.gives(w.ID) && w.Mode != IfNotPresent {
		m.plan.Conflicts = append(m.plan.Conflicts, Conflict{ID: w.ID, Owner: claimant})
		return nil
	}
	if !there {
		return m.absent(ctx, w)
	}
	if known.Marks.Has(HandsOff) {
		m.add(Skip, w, known.UID, "annotated on the cluster not to be reconciled")
		return nil
	}
	w.Replace = w.Replace || known.Marks.Has(MayReplace)
	if w.Mode == IfNotPresent {
		m.add(Keep, w, known.UID, "")
		return nil
	}
	if known.Digest != w.Digest || known.Owner != m.in.Unit {
		m.add(Update, w, known.UID, "")
		return nil
	}
	return m.same(ctx, w, known)
}

// absent decides on an object that does not carry our labels. Only
// IfNotPresent has to know whether it is there all the same.
func (m *maker) absent(ctx context.Context, w Want) error {
	if w.Mode == IfNotPresent {
		exists, err := m.prober.Exists(ctx, w.GVK(), w.ID)
		if err != nil {
			return fmt.Errorf("plan %s: %w", w.ID, err)
		}
		if exists {
			m.add(Skip, w, "", "is there already")
			return nil
		}
	}
	if m.leaves(w) && slices.ContainsFunc(m.in.Inventory, func(e Entry) bool { return e.ID == w.ID }) {
		m.add(Skip, w, "", leftToOthers)
		return nil
	}
	if !m.postpone(w, Known{}, "removing") {
		m.add(Create, w, "", "")
	}
	return nil
}

// leftToOthers is why drift of a lax object stays.
const leftToOthers = "what others do to it is left to them"

func (m *maker) leaves(w Want) bool { return w.Lax && !m.in.Policy.HealsAll }

// same decides on an object whose desired state is the one last applied.
func (m *maker) same(ctx context.Context, w Want, known Known) error {
	if m.leaves(w) {
		m.add(Skip, w, known.UID, leftToOthers)
		return nil
	}
	state := known.State
	desired := m.in.Objects[w.ID]
	asks := state == Unproven || state == Unowned && m.in.Recheck
	if asks && desired == nil {
		// An apply makes the pipeline plan again with the objects at hand; that
		// plan compares.
		m.add(Heal, w, known.UID, "has to be compared first")
		return nil
	}
	if state == Unproven {
		state = m.ledger.Adopt(w.ID, desired.Object)
	}
	if state == Unproven || asks && state == Unowned {
		var err error
		if state, err = m.probe(ctx, w, desired); err != nil {
			return err
		}
	}
	if state == Drifted {
		if !m.postpone(w, known, "changing") {
			m.add(Heal, w, known.UID, "changed by "+somebody(known.Contender))
		}
		return nil
	}
	m.add(Keep, w, known.UID, "")
	return nil
}

// probe settles by a dry run. An object that the API server refuses counts as
// drifted: applying it reports why, beside all other failures.
func (m *maker) probe(ctx context.Context, w Want, desired *unstructured.Unstructured) (State, error) {
	settled, err := m.prober.Settled(ctx, desired, w.Ignored)
	switch kind := failure.KindOf(err); {
	case err != nil && (kind == failure.Unavailable || kind == failure.Timeout || kind == "" || ctx.Err() != nil):
		return Unproven, fmt.Errorf("plan %s: %w", w.ID, err)
	case err != nil || !settled:
		return Drifted, nil //nolint:nilerr // apply reports it, see above
	}
	m.ledger.Settle(w.ID)
	return InSync, nil
}

// postpone keeps a contested object as it is while its healing has to wait.
func (m *maker) postpone(w Want, known Known, what string) bool {
	wait := m.ledger.HealAfter(w.ID)
	if wait <= 0 {
		return false
	}
	if m.plan.HealAfter == 0 || wait < m.plan.HealAfter {
		m.plan.HealAfter = wait
	}
	m.add(Keep, w, known.UID, fmt.Sprintf("%s keeps %s it, so it is healed less and less often", somebody(known.Contender), what))
	return true
}

func somebody(manager string) string {
	if manager == "" {
		return "somebody"
	}
	return manager
}

// prune decides on what is in the inventory and no longer desired.
func (m *maker) prune() {
	wanted := m.wanted()
	var deletions []Action
	for _, e := range m.in.Inventory {
		if wanted[e.ID] {
			continue
		}
		a := Removal(m.in.Unit, e, m.ledger)
		if a.Verb == Delete && m.in.Foresight.takes(e.ID) {
			a = Action{Verb: Release, ID: e.ID, Version: e.Version, Reason: handedOver}
		}
		if a.Verb == Delete {
			deletions = append(deletions, a)
			continue
		}
		m.plan.Actions = append(m.plan.Actions, a)
	}
	if f := m.in.Foresight; f != nil && f.Unknown != "" {
		m.plan.Postponed, m.plan.PostponedReason = deletions, f.Unknown
		return
	}
	reason := m.in.Policy.Budget.Exceeded(deletions, len(m.in.Inventory))
	digest := digestOf(deletions)
	if reason != "" && m.in.Policy.Approved != digest {
		m.plan.Held, m.plan.HeldDigest, m.plan.HeldReason = deletions, digest, reason
		return
	}
	m.plan.Actions = append(m.plan.Actions, deletions...)
}

// release lets go of what is no longer desired while pruning is off, as the toolkit
// does: who turns it on again later has not asked for what was kept to be deleted.
func (m *maker) release() {
	wanted := m.wanted()
	for _, e := range m.in.Inventory {
		if !wanted[e.ID] {
			m.plan.Actions = append(m.plan.Actions, Action{Verb: Release, ID: e.ID, Version: e.Version, Reason: "pruning is off"})
		}
	}
}

func (m *maker) wanted() map[object.ID]bool {
	wanted := make(map[object.ID]bool, len(m.in.Wants))
	for _, w := range m.in.Wants {
		wanted[w.ID] = true
	}
	return wanted
}

// handedOver is why an object goes that another unit wants.
const handedOver = "is handed over to the unit that wants it now"

// Removal decides how an object of the inventory goes that is no longer
// desired: deleted with proof, or released with the reason.
func Removal(unit types.NamespacedName, e Entry, ledger Ledger) Action {
	a := Action{Verb: Release, ID: e.ID, Version: e.Version}
	known, there := ledger.Known(e.ID)
	switch {
	case !there:
		a.Reason = "is gone, or no longer carries our labels"
	case known.Owner != unit:
		a.Reason = "now belongs to " + known.Owner.String()
	case ledger.WantedByOther(e.ID, unit):
		a.Reason = handedOver
	case known.Marks.Has(KeepOnPrune):
		a.Reason = "annotated not to be pruned"
	case known.Marks.Has(HandsOff):
		a.Reason = "annotated on the cluster not to be reconciled"
	case known.Terminating:
		a.Reason = "is being deleted already"
	default:
		a.Verb, a.UID, a.Owner = Delete, known.UID, unit
	}
	return a
}

// digestOf identifies what actions do, whatever order they are in.
func digestOf(actions []Action) string {
	lines := make([]string, 0, len(actions))
	for _, a := range actions {
		if a.Verb == Keep || a.Verb == Skip {
			continue
		}
		// A reason may hold a time and is not part of what is done.
		lines = append(lines, strings.Join([]string{string(a.Verb), a.ID.Inventory(), a.Version, a.Digest, string(a.UID)}, " "))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])[:16]
}
