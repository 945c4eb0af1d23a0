package expr

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestWithin(t *testing.T) {
	t.Parallel()
	object := map[string]any{
		"kind": "Odd", "metadata": map[string]any{"generation": int64(3), "name": "one"},
		"status": map[string]any{
			"phase": "Live", "ready": true, "share": 0.5, "observed": "3",
			"conditions": []any{map[string]any{"type": "Ready", "status": "True", "observedGeneration": int64(3)}},
		},
		"extra": map[string]any{"done": true},
	}
	for _, row := range []struct {
		name, reason, text string
		want               bool
		err                error
	}{
		{name: "field", reason: "fields are named directly", text: "status.phase == 'Live'", want: true},
		{name: "false", reason: "it is not so", text: "status.phase == 'Dead'"},
		{name: "bare bool", reason: "its type shows only when it is evaluated", text: "status.ready", want: true},
		{name: "any top-level field", reason: "kinds may have others than spec and status", text: "extra.done", want: true},
		{name: "loop", reason: "the usual one", want: true,
			text: "status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True' && e.observedGeneration == metadata.generation)"},
		{name: "loop over a name that is a field", reason: "the loop's own comes first", text: "[1, 2].exists(status, status == 2) && status.ready", want: true},
		{name: "optional", reason: "missing fields can be asked for", text: "status.?missing.orValue(true)", want: true},
		{name: "has", reason: "missing fields can be asked for", text: "has(status.missing) && status.missing == 1"},
		{name: "types", reason: "CEL's own names are no fields", text: "type(status.ready) == bool && int(status.observed) == metadata.generation", want: true},
		{name: "numbers", reason: "of several types compare", text: "status.share < 1 && metadata.generation > 2.5", want: true},
		{name: "mixed list", reason: "the toolkit allows it here", text: "status.phase in ['Live', 1]", want: true},
		{name: "strings", reason: "the toolkit has these functions", text: "status.phase.lowerAscii() == 'live' && 'a-b'.split('-')[0] == 'a'", want: true},
		{name: "sets and encoders", reason: "the toolkit has these functions", text: "sets.contains([1, 2], [1]) && base64.encode(b'a') == 'YQ=='", want: true},
		{name: "missing field", reason: "the object does not say", text: "status.missing == 1", err: ErrNoAnswer},
		{name: "missing top-level field", reason: "the object does not say", text: "nothing.there == 1", err: ErrNoAnswer},
		{name: "no bool", reason: "it shows when it is evaluated", text: "status.phase", err: ErrNoAnswer},
		{name: "endless", reason: "ten million rounds", err: ErrTooCostly,
			text: nested(7)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e, err := Within(row.text)
			if err != nil {
				t.Fatalf("%s: %v", row.reason, err)
			}
			if e.String() != row.text {
				t.Errorf("prints as %q", e)
			}
			got, err := e.True(t.Context(), object)
			if got != row.want || !errors.Is(err, row.err) || row.err == nil && err != nil {
				t.Errorf("got %t, %v; want %t, %v: %s", got, err, row.want, row.err, row.reason)
			}
		})
	}
}

// nested is a condition that takes ten to the power of depth rounds.
func nested(depth int) string {
	text := "true"
	for range depth {
		text = "[0,1,2,3,4,5,6,7,8,9].all(x, " + text + ")"
	}
	return text
}

func TestRefused(t *testing.T) {
	t.Parallel()
	over := func(text string) error { _, err := Over(text, "self", "dep"); return err }
	within := func(text string) error { _, err := Within(text); return err }
	for _, row := range []struct {
		name, reason, text, want string
		compile                  func(string) error
	}{
		{name: "syntax", reason: "it ends too soon", text: "status.", compile: within, want: "line 1, column 8: Syntax error"},
		{name: "position", reason: "lines are counted", text: "status.a == 1 &&\n  nope(status.b)", compile: within, want: "line 2, column 7: undeclared reference to 'nope'"},
		{name: "no bool", reason: "its type is known", text: "'text'", compile: within, want: "is of type string and not bool"},
		{name: "number", reason: "its type is known", text: "size(status.items)", compile: within, want: "is of type int and not bool"},
		{name: "empty", reason: "there is nothing", text: "", compile: within, want: "Syntax error"},
		{name: "unknown variable", reason: "there are self and dep", text: "status.ready == true", compile: over, want: "undeclared reference to 'status'"},
		{name: "unknown type", reason: "as in the toolkit it has to be compared", text: "dep.status.ready", compile: over, want: "is of type dyn and not bool; compare it"},
		{name: "wrong type", reason: "self is an object", text: "self == 'a'", compile: over, want: "found no matching overload"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := row.compile(row.text)
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q: %s", err, row.want, row.reason)
			}
		})
	}
}

func TestOver(t *testing.T) {
	t.Parallel()
	e, err := Over("dep.status.lastAppliedRevision == self.spec.want && dep.metadata.labels['v'] == 'x'", "self", "dep")
	if err != nil {
		t.Fatal(err)
	}
	self := map[string]any{"spec": map[string]any{"want": "r"}}
	for _, row := range []struct {
		name, reason, label string
		want                bool
	}{
		{name: "so", reason: "all is equal", label: "x", want: true},
		{name: "not so", reason: "the label is another", label: "y"},
	} {
		dep := map[string]any{"status": map[string]any{"lastAppliedRevision": "r"}, "metadata": map[string]any{"labels": map[string]any{"v": row.label}}}
		if got, err := e.True(t.Context(), map[string]any{"self": self, "dep": dep}); err != nil || got != row.want {
			t.Errorf("%s: got %t, %v: %s", row.name, got, err, row.reason)
		}
	}
	if _, err := e.True(t.Context(), map[string]any{"self": self, "dep": map[string]any{}}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("without the field: %v", err)
	}
}

// The engine stops: an evaluation does not outlive it.
func TestCancelled(t *testing.T) {
	t.Parallel()
	e, err := Within(nested(4))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.True(ctx, map[string]any{}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("got %v", err)
	}
}

// What an expression may cost at most is soon over.
func BenchmarkCostLimit(b *testing.B) {
	e, err := Within(nested(7))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := e.True(b.Context(), map[string]any{}); !errors.Is(err, ErrTooCostly) {
			b.Fatal(err)
		}
	}
}

func BenchmarkUsual(b *testing.B) {
	e, err := Within("status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')")
	if err != nil {
		b.Fatal(err)
	}
	object := map[string]any{"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}}
	for b.Loop() {
		if ok, err := e.True(b.Context(), object); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

// What people write is far below the limit, also over a status of a thousand lines.
func TestLimitLeavesRoom(t *testing.T) {
	t.Parallel()
	e, err := Within("status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True' && e.observedGeneration == metadata.generation)")
	if err != nil {
		t.Fatal(err)
	}
	conditions := make([]any, 1000)
	for i := range conditions {
		conditions[i] = map[string]any{"type": "Ready", "status": "True", "observedGeneration": int64(1)}
	}
	object := map[string]any{"metadata": map[string]any{"generation": int64(1)}, "status": map[string]any{"conditions": conditions}}
	if ok, err := e.True(t.Context(), object); !ok || err != nil {
		t.Errorf("got %t, %v", ok, err)
	}
}
