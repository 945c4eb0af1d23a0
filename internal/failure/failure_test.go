package failure_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
)

func TestTerminal(t *testing.T) {
	invalid := &failure.Error{Op: "apply", Kind: failure.Invalid, Err: errors.New("no such field")}
	unavailable := &failure.Error{Op: "apply", Kind: failure.Unavailable, Err: errors.New("no answer")}
	tests := []struct {
		name, reason string
		err          error
		want         bool
	}{
		{"none", "nothing failed", nil, false},
		{"plain", "nobody said that it is hopeless", errors.New("x"), false},
		{"invalid", "the input has to change", invalid, true},
		{"refused", "rules change by hand only", &failure.Error{Op: "use", Kind: failure.Refused}, true},
		{"unavailable", "the server may come back", unavailable, false},
		{"wrapped", "wrapping changes nothing", fmt.Errorf("run: %w", invalid), true},
		{"outermost", "the outermost kind is the verdict", &failure.Error{Kind: failure.Unavailable, Err: invalid}, false},
		{"joined, one hopeful", "trying again helps one of them", errors.Join(invalid, unavailable), false},
		{"joined, all hopeless", "trying again helps none", fmt.Errorf("run: %w", errors.Join(invalid, invalid)), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := failure.Terminal(tt.err); got != tt.want {
				t.Errorf("Terminal(%v) = %t, want %t: %s", tt.err, got, tt.want, tt.reason)
			}
		})
	}
}
