package health

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Rules are a unit's own words for the health of kinds. The nil Rules say nothing.
// They are safe for concurrent use.
type Rules struct {
	checks []kustomize.CustomHealthCheck
	// of holds what is said of a kind; one without a kind's name is about all kinds
	// of the group that have none of their own.
	of map[schema.GroupKind]*rule
}

// rule is what is said of one kind.
type rule struct {
	// In the order in which they are asked, which is the toolkit's.
	conditions []asked
}

// asked is one of the three conditions of a rule.
type asked struct {
	field  string
	expr   *expr.Expression
	status Status
}

// NewRules compiles spec.healthCheckExprs. It returns nil where there are none. An
// error names the field and the position in it.
func NewRules(checks []kustomize.CustomHealthCheck) (*Rules, error) {
	if len(checks) == 0 {
		return nil, nil
	}
	r := &Rules{checks: checks, of: make(map[schema.GroupKind]*rule, len(checks))}
	for i, c := range checks {
		field := fmt.Sprintf("spec.healthCheckExprs[%d]", i)
		gv, err := schema.ParseGroupVersion(c.APIVersion)
		if err != nil {
			return nil, badField(field+".apiVersion", err)
		}
		gk := schema.GroupKind{Group: gv.Group, Kind: c.Kind}
		if r.of[gk] != nil {
			return nil, badField(field, fmt.Errorf("another entry is about %q as well", gk.String()))
		}
		if r.of[gk], err = newRule(field, c.HealthCheckExpressions); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func newRule(field string, e kustomize.HealthCheckExpressions) (*rule, error) {
	if e.Current == "" {
		return nil, badField(field+".current", errors.New("is missing"))
	}
	out := &rule{}
	for _, c := range []struct {
		name, text string
		status     Status
	}{{"inProgress", e.InProgress, InProgress}, {"failed", e.Failed, Failed}, {"current", e.Current, Current}} {
		if c.text == "" {
			continue
		}
		compiled, err := expr.Within(c.text)
		if err != nil {
			return nil, badField(field+"."+c.name, err)
		}
		out.conditions = append(out.conditions, asked{field: field + "." + c.name, expr: compiled, status: c.status})
	}
	return out, nil
}

func badField(field string, err error) error {
	return &failure.Error{Op: "read", Kind: failure.Invalid, Object: field, Err: err, Remedy: "correct the expression"}
}

// Same reports whether both say the same.
func (r *Rules) Same(other *Rules) bool {
	if r == nil || other == nil {
		return r == other
	}
	if len(r.checks) != len(other.checks) {
		return false
	}
	for i := range r.checks {
		if r.checks[i] != other.checks[i] {
			return false
		}
	}
	return true
}

// Judge reports whether anything is said of a kind.
func (r *Rules) Judge(gk schema.GroupKind) bool { return r.rule(gk) != nil }

func (r *Rules) rule(gk schema.GroupKind) *rule {
	if r == nil {
		return nil
	}
	if own := r.of[gk]; own != nil {
		return own
	}
	return r.of[schema.GroupKind{Group: gk.Group}]
}

// Of judges u by the rules, and by its own content as [Of] where they say nothing of
// its kind. An object that is being deleted is never healthy, whatever they say.
func (r *Rules) Of(ctx context.Context, u *unstructured.Unstructured) Verdict {
	gk := u.GroupVersionKind().GroupKind()
	rule := r.rule(gk)
	if rule == nil || u.GetDeletionTimestamp() != nil {
		return Of(u)
	}
	if observedOld(u) {
		return inProgress("its controller has not seen generation %d yet", u.GetGeneration())
	}
	for _, c := range rule.conditions {
		is, err := c.expr.True(ctx, u.Object)
		switch {
		case errors.Is(err, expr.ErrTooCostly):
			return tooCostly(c.field)
		case err != nil:
			return unanswered(c.field, gk, err)
		case is && c.status == Current:
			return current()
		case is:
			return Verdict{Status: c.status, Message: line(c.field+" is true: "+c.expr.String(), maxMessage)}
		}
	}
	return inProgress("none of its expressions is true; %s: %s", rule.last().field, rule.last().expr)
}

func (r *rule) last() asked { return r.conditions[len(r.conditions)-1] }

// observedOld reports whether the object's controller says that it has seen an
// older generation only. Kinds whose field is no number are taken at their word.
func observedOld(u *unstructured.Unstructured) bool {
	observed, ok, err := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	return ok && err == nil && u.GetGeneration() != 0 && observed != u.GetGeneration()
}

func tooCostly(field string) Verdict {
	return failed("%s %s; simplify the expression", field, expr.ErrTooCostly)
}

// unanswered is the verdict where a condition cannot be evaluated: mostly because a
// field is missing that will come. What the error quotes may be a secret.
func unanswered(field string, gk schema.GroupKind, err error) Verdict {
	if gk == (schema.GroupKind{Kind: "Secret"}) {
		err = expr.ErrNoAnswer
	}
	return Verdict{Status: Unknown, Message: line(fmt.Sprintf("%s %s", field, err), maxMessage)}
}
