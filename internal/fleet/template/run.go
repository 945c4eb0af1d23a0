package template

import (
	"context"
	"errors"
	"fmt"

	"github.com/bowline-dev/bowline/internal/expr"
)

// Limits of what one cluster's template, or one unit, may cost and give. They are far above what clusters are made of, and
// far below what would hurt the hub.
const (
	// MaxObjects is how many objects a template may become.
	MaxObjects = 1000
	// MaxBytes is how large they may be together: about the length of their JSON.
	MaxBytes = 4 << 20
	// MaxCost is how many steps their expressions may take together; see expr.CostLimit
	// for a single one.
	MaxCost = 1_000_000
	// maxProblems is after how many problems the rest is not looked at.
	maxProblems = 100
)

// Variables are what expressions may name. Their values are JSON as the API machinery decodes it: whole
// numbers are int64.
type Variables map[string]any

// run is one expansion: the variables, what it may still cost, and what was found to be wrong.
type run struct {
	variables map[string]any
	// where adds to the path which item of a loop it is.
	where    string
	cost     uint64
	bytes    int
	problems FieldErrors
}

// failed stands for the value of an expression that has none; the problem is noted.
type failed struct{}

// errOver ends an expansion that exceeds a limit, or whose context ended; the problem is noted.
var errOver = errors.New("the expansion cannot go on")

func (r *run) problem(path, format string, args ...any) {
	r.problems = append(r.problems, FieldError{Path: path, Message: fmt.Sprintf(format, args...) + r.where})
}

// value evaluates the expression at path. A problem is noted and gives failed, so that all of
// them are found at once. The error is expr.ErrAbsent or errOver.
func (r *run) value(ctx context.Context, path string, e *expr.Expression) (any, error) {
	value, cost, err := e.Value(ctx, r.variables)
	switch r.cost += cost; {
	case errors.Is(err, expr.ErrAbsent):
		return nil, expr.ErrAbsent
	case ctx.Err() != nil:
		r.problem(path, "there was no time left: %v", context.Cause(ctx))
		return nil, errOver
	case errors.Is(err, expr.ErrTooCostly), errors.Is(err, expr.ErrTooLarge):
		r.problem(path, "%s %v; make it simpler, or the list that it runs through shorter", quote(e.String()), err)
		return nil, errOver
	case err != nil:
		r.problem(path, "%s %v; write a.?b.orValue('…') where a field can be missing", quote(e.String()), err)
		return failed{}, nil
	case r.cost > MaxCost:
		r.problem(path, "the expressions up to here take more than %d steps; make them simpler, or the lists that they run through shorter", MaxCost)
		return nil, errOver
	}
	return value, r.grow(path, sizeOf(value))
}

// condition evaluates an expression that has to give a bool; a problem counts as false. The
// error is errOver.
func (r *run) condition(ctx context.Context, at string, e *expr.Expression) (bool, error) {
	value, err := r.value(ctx, at, e)
	if errors.Is(err, expr.ErrAbsent) {
		r.problem(at, "%s gives no value; say what else with .orValue(false)", quote(e.String()))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch v := value.(type) {
	case bool:
		return v, nil
	case failed:
	default:
		r.problem(at, "%s gives %s and not true or false; compare it with something", quote(e.String()), typeOf(v))
	}
	return false, nil
}

// grow counts what was made.
func (r *run) grow(path string, bytes int) error {
	if r.bytes += bytes; r.bytes > MaxBytes {
		r.problem(path, "what is made up to here is larger than %d bytes; make less of it", MaxBytes)
		return errOver
	}
	return nil
}

// sizeOf is about the length of the value's JSON.
func sizeOf(value any) int {
	switch v := value.(type) {
	case string:
		return len(v) + 2
	case []any:
		size := 2
		for _, item := range v {
			size += sizeOf(item) + 1
		}
		return size
	case map[string]any:
		size := 2
		for key, item := range v {
			size += len(key) + 4 + sizeOf(item)
		}
		return size
	default:
		return 5
	}
}
