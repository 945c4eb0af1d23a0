package plan

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/object"
)

// Ledger is what a plan asks of the record of what is on the cluster. What it
// does not know carries none of our labels.
type Ledger interface {
	// Known returns what is known of an object, and false when nothing is.
	Known(object.ID) (Known, bool)
	// Adopt settles an object that is Unproven by comparing the fields that we
	// own with the object that we want. It reports InSync, Drifted, or Unproven
	// when only a dry run can tell.
	Adopt(id object.ID, want map[string]any) State
	// Settle notes that a dry run found the object as it should be.
	Settle(object.ID)
	// Claimant returns the unit that wanted the object first.
	Claimant(object.ID) (types.NamespacedName, bool)
	// WantedByOther reports whether another unit wants the object.
	WantedByOther(object.ID, types.NamespacedName) bool
	// HealAfter returns how long a healing has to wait because somebody keeps
	// changing or removing the object; zero means now. Asking changes nothing.
	HealAfter(object.ID) time.Duration
}

// Prober asks the API server what an apply would do, without doing it.
type Prober interface {
	// Settled reports whether applying the object would change nothing, when these
	// fields are left to others.
	Settled(context.Context, *unstructured.Unstructured, *ignore.Paths) (bool, error)
	// Exists reports whether the object is there, whoever made it.
	Exists(context.Context, schema.GroupVersionKind, object.ID) (bool, error)
}

// Known is what the ledger knows of an object.
type Known struct {
	UID types.UID
	// Digest of what was last applied.
	Digest string
	// Owner is the unit that the owner labels name.
	Owner types.NamespacedName
	State State
	Marks Marks
	// Contender is the field manager that last wrote, other than ours; may be
	// empty.
	Contender string
	// Terminating: the object is being deleted.
	Terminating bool
}

// State says how an object relates to what was last applied.
type State int

// The states.
const (
	// InSync: nobody changed a field of ours since.
	InSync State = iota
	// Drifted: somebody changed a field of ours.
	Drifted
	// Unproven: an earlier process applied it, and it is not yet known which.
	Unproven
	// Unowned: the server keeps no field ownership for this kind.
	Unowned
)

// Marks are the toolkit's annotations on a live object that steer us.
type Marks uint8

// The marks.
const (
	// KeepOnPrune: the object is never pruned.
	KeepOnPrune Marks = 1 << iota
	// HandsOff: the object is not reconciled.
	HandsOff
	// MayReplace: the object may be replaced where a field is immutable.
	MayReplace
)

// Has reports whether all of m are set.
func (k Marks) Has(m Marks) bool { return k&m == m }
