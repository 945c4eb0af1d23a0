package apply

import (
	"errors"
	"fmt"
	"testing"
)

func TestPending(t *testing.T) {
	pending := Result{Err: fmt.Errorf("apply: %w", ErrPending)}
	broken := Result{Err: errors.New("refused")}
	for _, c := range []struct {
		name, reason string
		changes      ChangeSet
		want         bool
	}{
		{"nothing", "nothing is waited for", nil, false},
		{"done", "nothing failed", ChangeSet{{}}, false},
		{"pending", "an event brings the rest", ChangeSet{{}, pending}, true},
		{"both", "a failure is told, whatever else is waited for", ChangeSet{pending, broken}, false},
		{"failed", "no event mends it", ChangeSet{broken}, false},
	} {
		if got := c.changes.Pending(); got != c.want {
			t.Errorf("%s: %v, want %v: %s", c.name, got, c.want, c.reason)
		}
	}
}
