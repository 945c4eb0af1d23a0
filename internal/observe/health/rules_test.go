package health

import (
	"errors"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/kustomize"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/failure"
)

func check(version, kind, current, inProgress, failed string) kustomize.CustomHealthCheck {
	return kustomize.CustomHealthCheck{APIVersion: version, Kind: kind, HealthCheckExpressions: kustomize.HealthCheckExpressions{
		Current: current, InProgress: inProgress, Failed: failed,
	}}
}

// endless takes ten million rounds.
const endless = "[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, " +
	"[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, true)))))))"

func TestRules(t *testing.T) {
	t.Parallel()
	full := check("odd.test/v1", "Odd", "status.phase == 'Live'", "status.phase in ['New', 'Moving']", "status.phase == 'Broken'")
	for _, row := range []struct {
		name, reason string
		check        kustomize.CustomHealthCheck
		object       string
		want         Status
		message      string
	}{
		{name: "current", reason: "it says so", check: full, object: "status: {phase: Live}", want: Current},
		{name: "in progress", reason: "it says so", check: full, object: "status: {phase: New}", want: InProgress, message: "spec.healthCheckExprs[0].inProgress is true: status.phase in"},
		{name: "failed", reason: "it says so", check: full, object: "status: {phase: Broken}", want: Failed, message: "spec.healthCheckExprs[0].failed is true"},
		{name: "none", reason: "no expression is true", check: full, object: "status: {phase: Other}", want: InProgress, message: "none of its expressions is true"},
		{name: "no status", reason: "the controller has not come to it yet, so it is waited for", check: full, object: "spec: {}", want: Unknown,
			message: "spec.healthCheckExprs[0].inProgress has no answer: no such attribute(s): status"},
		{name: "older generation", reason: "what the status says is about the spec before", check: full,
			object: "metadata: {name: a, generation: 2}\nstatus: {phase: Live, observedGeneration: 1}", want: InProgress, message: "has not seen generation 2"},
		{name: "generation as text", reason: "it cannot be compared", check: full,
			object: "metadata: {name: a, generation: 2}\nstatus: {phase: Live, observedGeneration: '1'}", want: Current},
		{name: "first answer", reason: "in progress is asked before failed and current", check: check("odd.test/v1", "Odd", "true", "true", "true"), object: "spec: {}", want: InProgress},
		{name: "failed before current", reason: "the toolkit asks in this order", check: check("odd.test/v1", "Odd", "true", "", "true"), object: "spec: {}", want: Failed},
		{name: "being deleted", reason: "it will not stay", check: check("odd.test/v1", "Odd", "true", "", ""),
			object: "metadata: {name: a, deletionTimestamp: '2024-01-01T00:00:00Z'}", want: Terminating},
		{name: "whole group", reason: "no kind is named", check: check("odd.test/v1", "", "false", "", "true"), object: "spec: {}", want: Failed},
		{name: "any version", reason: "health is not a matter of the version", check: check("odd.test/v2", "Odd", "false", "", "true"), object: "spec: {}", want: Failed},
		{name: "other kind", reason: "nothing is said of it", check: check("odd.test/v1", "Even", "false", "", "true"), object: "spec: {}", want: Current},
		{name: "too costly", reason: "it would hold up others", check: check("odd.test/v1", "Odd", endless, "", ""), object: "spec: {}", want: Failed,
			message: "spec.healthCheckExprs[0].current takes more than 50000 steps; simplify the expression"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			rules, err := NewRules([]kustomize.CustomHealthCheck{row.check})
			if err != nil {
				t.Fatal(err)
			}
			u := parse(t, "apiVersion: odd.test/v1\nkind: Odd\n"+row.object)
			for range 2 { // what is remembered of the first must not change the second
				got := rules.Of(t.Context(), u)
				if got.Status != row.want || !strings.Contains(got.Message, row.message) {
					t.Errorf("got %v %q, want %v %q: %s", got.Status, got.Message, row.want, row.message, row.reason)
				}
			}
		})
	}
}

// What one object costs says nothing of others.
func TestRulesTooCostlyForOne(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]kustomize.CustomHealthCheck{check("odd.test/v1", "Odd", "spec.items.all(a, spec.items.all(b, spec.items.all(c, a + b + c >= 0)))", "", "")})
	if err != nil {
		t.Fatal(err)
	}
	of := func(items int) Verdict {
		list := strings.TrimSuffix(strings.Repeat("1,", items), ",")
		return rules.Of(t.Context(), parse(t, "apiVersion: odd.test/v1\nkind: Odd\nspec: {items: ["+list+"]}"))
	}
	if got := of(100); got.Status != Failed || !strings.Contains(got.Message, "takes more than 50000 steps") {
		t.Errorf("a million rounds: %v %q", got.Status, got.Message)
	}
	if got := of(3); got.Status != Current {
		t.Errorf("27 rounds after that: %v %q, want it judged by itself", got.Status, got.Message)
	}
}

// The error of an evaluation may quote what was looked at.
func TestRulesQuoteNoSecret(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]kustomize.CustomHealthCheck{check("v1", "Secret", "metadata.labels[data.key] == 'x'", "", "")})
	if err != nil {
		t.Fatal(err)
	}
	u := parse(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s, labels: {a: b}}\ndata: {key: aHVzaA}")
	if got := rules.Of(t.Context(), u); got.Status != Unknown || strings.Contains(got.Message, "aHVzaA") {
		t.Errorf("got %+v", got)
	}
}

func TestRulesRefused(t *testing.T) {
	t.Parallel()
	good := check("odd.test/v1", "Odd", "true", "", "")
	for _, row := range []struct {
		name, reason, want string
		checks             []kustomize.CustomHealthCheck
	}{
		{name: "syntax", reason: "it ends too soon", checks: []kustomize.CustomHealthCheck{good, check("a/v1", "A", "true", "status.", "")},
			want: "spec.healthCheckExprs[1].inProgress: does not compile: line 1, column 8"},
		{name: "no bool", reason: "text is neither true nor false", checks: []kustomize.CustomHealthCheck{check("a/v1", "A", "true", "", "'x'")},
			want: "spec.healthCheckExprs[0].failed: is of type string and not bool"},
		{name: "no current", reason: "it could never be healthy", checks: []kustomize.CustomHealthCheck{check("a/v1", "A", "", "true", "")},
			want: "spec.healthCheckExprs[0].current: is missing"},
		{name: "twice", reason: "which one counts", checks: []kustomize.CustomHealthCheck{good, check("odd.test/v2", "Odd", "false", "", "")},
			want: `spec.healthCheckExprs[1]: another entry is about "Odd.odd.test" as well`},
		{name: "version", reason: "there is no such", checks: []kustomize.CustomHealthCheck{check("a/b/c", "A", "true", "", "")},
			want: "spec.healthCheckExprs[0].apiVersion"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewRules(row.checks)
			if !errors.Is(err, failure.Of(failure.Invalid)) || !failure.Terminal(err) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q: %s", err, row.want, row.reason)
			}
		})
	}
}

func TestRulesSame(t *testing.T) {
	t.Parallel()
	one, err := NewRules([]kustomize.CustomHealthCheck{check("a/v1", "A", "true", "", "")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewRules([]kustomize.CustomHealthCheck{check("a/v1", "A", "true", "", "")})
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewRules([]kustomize.CustomHealthCheck{check("a/v1", "A", "true", "", "false")})
	if err != nil {
		t.Fatal(err)
	}
	none, err := NewRules(nil)
	if err != nil || none != nil {
		t.Fatalf("no rules: got %v, %v", none, err)
	}
	if !one.Same(again) || one.Same(other) || one.Same(nil) || none.Same(one) || !none.Same(nil) {
		t.Error("rules are compared by something else than what they say")
	}
	if none.Judge(schema.GroupKind{Group: "a", Kind: "A"}) || !one.Judge(schema.GroupKind{Group: "a", Kind: "A"}) {
		t.Error("who says something of which kind is wrong")
	}
}
