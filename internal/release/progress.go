package release

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/observe"
)

// Progress is how far a step came in one call.
type Progress struct {
	// Done: nothing is left to do.
	Done bool
	// Failed is why the step failed; nil while it did not. Calling again gives the same.
	Failed error
	// Object is what Failed or Waits is about, and Hook the name of the hook that it is
	// of; both may be empty.
	Object observe.Reference
	Hook   string
	// Waits is what the rest waits for, as a line for people.
	Waits string
	// Until is when the wait becomes a failure: the caller comes back then, if no event
	// brings it sooner. Zero: never.
	Until time.Time
}

// ended says that the step needs no further call.
func (p Progress) ended() bool { return p.Done || p.Failed != nil }

// Follower makes the unit come back when one of these objects changes, and none that
// it named before; an observe.Ledger is one.
type Follower interface {
	Follow(ctx context.Context, unit types.NamespacedName, refs []observe.Reference) error
}

// Records is where a step writes how far it came; a [Store] is one.
type Records interface {
	Update(context.Context, *Record) error
	Mark(context.Context, *Record) error
}
