package expr

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// SizeLimit bounds what one evaluation may give, in bytes of the strings and keys in it and
// eight for each value. The cost does not bound it: a list that holds one large value
// a thousand times is made in a thousand steps.
const SizeLimit = 1 << 20

// ErrTooLarge is wrapped by the error of an evaluation whose value exceeds SizeLimit.
var ErrTooLarge = fmt.Errorf("gives more than %d bytes", SizeLimit)

// ErrAbsent is the error of an expression that gives an optional without a value,
// such as parameters.?size where there is no size.
var ErrAbsent = errors.New("gives no value")

// Scope is a set of variables that expressions may name. It is safe for concurrent use.
type Scope struct {
	env       *cel.Env
	variables map[string]bool
}

// NewScope declares variables of which nothing is known beforehand but the name. To make a scope costs
// more than to compile in it.
func NewScope(variables ...string) (*Scope, error) {
	env, err := lenient()
	if err != nil {
		return nil, err
	}
	declared := make([]cel.EnvOption, 0, len(variables))
	known := make(map[string]bool, len(variables))
	for _, name := range variables {
		declared = append(declared, cel.Variable(name, cel.DynType))
		known[name] = true
	}
	if env, err = env.Extend(append(append(declared, cel.CustomTypeAdapter(adapter{env.CELTypeAdapter()})), functions()...)...); err != nil {
		return nil, fmt.Errorf("declare variables: %w", err)
	}
	return &Scope{env: env, variables: known}, nil
}

// Compile compiles an expression of whatever type. The error says where in the text it
// went wrong.
func (s *Scope) Compile(text string) (*Expression, error) {
	checked, issues := s.env.Compile(text)
	if issues.Err() != nil {
		return nil, compileError(issues)
	}
	e, err := build(s.env, checked, text, functionCosts(), cel.CustomDecoratorV2(literals))
	if err != nil {
		return nil, err
	}
	e.references, e.path = references(checked, s.variables)
	return e, nil
}

// References are the fields that the expression asks of its variables, as far as the
// text tells. Only expressions of a Scope know them.
func (e *Expression) References() []Reference { return e.references }

// Path returns the reference that the whole expression is, such as parameters.nodes; ok is
// false where it is anything else.
func (e *Expression) Path() (path Reference, ok bool) {
	return e.path, e.path != nil
}

// Value evaluates the expression to a JSON value: nil, bool, int64, float64, string, []any or
// map[string]any, which shares nothing with the variables. It also tells the cost. The errors are
// ErrAbsent, or wrap ErrTooCostly, ErrTooLarge or ErrNoAnswer, and may quote what was looked at.
func (e *Expression) Value(ctx context.Context, variables map[string]any) (value any, cost uint64, err error) {
	got, cost, err := e.evaluate(ctx, variables)
	if err != nil {
		return nil, cost, err
	}
	left := SizeLimit
	value, err = native(got, &left)
	return value, cost, err
}

// evaluate runs the program within the limits.
func (e *Expression) evaluate(ctx context.Context, variables map[string]any) (ref.Val, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, TimeLimit)
	defer cancel()
	value, details, err := e.program.ContextEval(ctx, variables)
	var cost uint64
	if details != nil && details.ActualCost() != nil {
		cost = *details.ActualCost()
	}
	return value, cost, evaluationError(ctx, err)
}

// native makes a JSON value of a CEL value.
func native(value ref.Val, left *int) (any, error) {
	if *left -= 8; *left < 0 {
		return nil, ErrTooLarge
	}
	switch v := value.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Uint:
		if v > math.MaxInt64 {
			return nil, fmt.Errorf("%w: %d is too large a number", ErrNoAnswer, uint64(v))
		}
		return int64(v), nil
	case types.Double:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("%w: %v is not a number", ErrNoAnswer, float64(v))
		}
		return float64(v), nil
	case types.String:
		return nativeString(string(v), left)
	case *types.Optional:
		if !v.HasValue() {
			return nil, ErrAbsent
		}
		return native(v.GetValue(), left)
	case traits.Mapper:
		return nativeMap(v, left)
	case traits.Lister:
		return nativeList(v, left)
	default:
		return nil, fmt.Errorf("%w: a value of type %s cannot be part of an object; make it a string", ErrNoAnswer, value.Type().TypeName())
	}
}

func nativeString(s string, left *int) (any, error) {
	if *left -= len(s); *left < 0 {
		return nil, ErrTooLarge
	}
	return strings.Clone(s), nil
}

// nativeList leaves out elements that are optionals without a value.
func nativeList(list traits.Lister, left *int) (any, error) {
	out := []any{}
	for it := list.Iterator(); it.HasNext() == types.True; {
		switch item, err := native(it.Next(), left); {
		case errors.Is(err, ErrAbsent):
		case err != nil:
			return nil, err
		default:
			out = append(out, item)
		}
	}
	return out, nil
}

// nativeMap leaves out entries that are optionals without a value.
func nativeMap(m traits.Mapper, left *int) (any, error) {
	out := map[string]any{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.(types.String)
		if !ok {
			return nil, fmt.Errorf("%w: a key of a map is of type %s and not string", ErrNoAnswer, key.Type().TypeName())
		}
		if *left -= len(name); *left < 0 {
			return nil, ErrTooLarge
		}
		switch item, err := native(m.Get(key), left); {
		case errors.Is(err, ErrAbsent):
		case err != nil:
			return nil, err
		default:
			out[string(name)] = item
		}
	}
	return out, nil
}
