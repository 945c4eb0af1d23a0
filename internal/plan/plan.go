// Package plan is the third stage of the main loop: from what is desired, what
// the ledger knows and what the inventory holds to a list of actions. A plan is
// a value: it touches nothing, it lists every deletion, and something unknown
// is never a deletion.
package plan

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/object"
)

// Verb says what an action does.
type Verb string

// The verbs, in the words that Flux's users know from events.
const (
	// Create applies an object that is not there, as far as is known.
	Create Verb = "created"
	// Update applies an object whose desired state changed.
	Update Verb = "configured"
	// Heal applies an object that somebody else changed.
	Heal Verb = "healed"
	// Keep does nothing: the object is as it should be.
	Keep Verb = "unchanged"
	// Skip does nothing: an annotation on the object says so.
	Skip Verb = "skipped"
	// Delete prunes an object.
	Delete Verb = "deleted"
	// Release forgets an object of the inventory without deleting it.
	Release Verb = "released"
)

// Want is one desired object, small enough to be remembered for every object of
// every unit.
type Want struct {
	ID object.ID
	// Version is the API version that the object is written in.
	Version string
	// Digest identifies what will be sent.
	Digest string
	Mode   Mode
	// Replace says that the object is deleted and made anew when the API server
	// refuses to change it because a field is immutable.
	Replace bool
	// Ignored are the fields that are left to others; nil where there are none. The
	// digest is the one without them.
	Ignored *ignore.Paths
	// Lax says that what others do to the object as a whole, its removal included, is left
	// to them until something else is desired.
	Lax bool
}

// GVK returns the API group, version and kind.
func (w Want) GVK() schema.GroupVersionKind { return w.ID.GroupKind().WithVersion(w.Version) }

// Mode is the server-side apply mode that the object's annotation asks for.
type Mode string

// The modes of the toolkit's ssa annotation, and of its reconcile annotation.
const (
	// Override is the default: fields that are not desired and were set by
	// kubectl are removed.
	Override Mode = ""
	// Merge leaves the fields that kubectl set.
	Merge Mode = "Merge"
	// IfNotPresent applies only what is not there.
	IfNotPresent Mode = "IfNotPresent"
	// Ignore never applies.
	Ignore Mode = "Ignore"
)

// Entry is one object of an inventory.
type Entry struct {
	ID      object.ID
	Version string
}

// Action is one step of a plan.
type Action struct {
	Verb Verb
	ID   object.ID
	// Version is the API version to use.
	Version string
	// Mode, Replace and Ignored are those of the Want; they are set for applies.
	Mode    Mode
	Replace bool
	// Ignored are the fields that keep the value which the object has.
	Ignored *ignore.Paths
	// Digest is what the applied annotation will say.
	Digest string
	// UID is the proof for a deletion: only the object with this uid may go.
	UID types.UID
	// Owner is more of that proof: the unit that the owner labels must name.
	Owner types.NamespacedName
	// Reason says why, for people; may be empty.
	Reason string
}

// GVK returns the API group, version and kind.
func (a Action) GVK() schema.GroupVersionKind { return a.ID.GroupKind().WithVersion(a.Version) }

// Applies reports whether the action sends the object.
func (a Action) Applies() bool { return a.Verb == Create || a.Verb == Update || a.Verb == Heal }

// Plan is what has to happen so that the cluster is as desired.
type Plan struct {
	// Actions in no particular order; apply sorts them into stages.
	Actions []Action
	// Digest identifies the plan: what is applied, what is deleted.
	Digest string
	// Held lists the deletions that exceed the budget and wait for approval.
	// They are not in Actions.
	Held []Action
	// HeldDigest identifies the held deletions; an approval names it.
	HeldDigest string
	// HeldReason says which limit was exceeded.
	HeldReason string
	// Conflicts are desired objects that another unit delivers.
	Conflicts []Conflict
	// Postponed are deletions that are not made because it is not known whether
	// another unit wants the object now, and PostponedReason says why not.
	Postponed       []Action
	PostponedReason string
	// HealAfter is when the next healing of a contested object is due; zero
	// when none waits.
	HealAfter time.Duration
}

// Conflict is an object that two units want.
type Conflict struct {
	ID    object.ID
	Owner types.NamespacedName
}

// Quiet reports whether the plan does nothing at all.
func (p *Plan) Quiet() bool {
	for _, a := range p.Actions {
		if a.Verb != Keep && a.Verb != Skip {
			return false
		}
	}
	return len(p.Held) == 0 && len(p.Postponed) == 0
}

// MovesObjects reports whether the plan deletes something, or found something
// taken, so that what other units want now matters.
func (p *Plan) MovesObjects() bool {
	return len(p.Conflicts) > 0 || len(p.Held) > 0 ||
		slices.ContainsFunc(p.Actions, func(a Action) bool { return a.Verb == Delete })
}

// Sends reports whether any action needs the desired objects themselves.
func (p *Plan) Sends() bool {
	for _, a := range p.Actions {
		if a.Applies() {
			return true
		}
	}
	return false
}

// Objects gives access to the desired objects while a plan is made or applied.
type Objects map[object.ID]*unstructured.Unstructured
