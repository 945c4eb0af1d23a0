// Package expr is the room of the expressions that users write in the Common
// Expression Language (CEL): one environment for all of them, compiled before
// anything depends on them, and evaluated within limits.
//
// The environment is that of the toolkit's controllers, so that an expression
// means the same here and there.
package expr

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/stdlib"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
)

// Limits of one evaluation. The cost is CEL's own count of steps: a loop over a
// thousand conditions costs some twenty thousand. To count takes time as well, and the
// more the longer it goes on. The time guards what the count does not see; it is far
// above what the count allows, so that a busy machine does not make an expression fail.
const (
	CostLimit = 50_000
	TimeLimit = 10 * time.Second
	// interruptEvery is how many rounds of a loop go by between two looks at the clock.
	interruptEvery = 100
)

// ErrTooCostly is wrapped by the error of an evaluation that exceeded CostLimit. It
// will do so again for as long as what it looks at stays as large.
var ErrTooCostly = fmt.Errorf("takes more than %d steps", CostLimit)

// ErrNoAnswer is wrapped by all other errors of an evaluation, for instance
// when a field is missing.
var ErrNoAnswer = errors.New("has no answer")

// Expression is one compiled condition, or a value. It is safe for concurrent use.
type Expression struct {
	text    string
	program cel.Program
	// references and path are known of expressions of a Scope.
	references []Reference
	path       Reference
}

// String returns the expression as it was written.
func (e *Expression) String() string { return e.text }

// Over compiles a condition over the variables, each an object. As in the toolkit
// its type has to be known to be bool: a field alone has to be compared with true.
// The error says where in the text it went wrong.
func Over(text string, variables ...string) (*Expression, error) {
	env, err := strict()
	if err != nil {
		return nil, err
	}
	declared := make([]cel.EnvOption, 0, len(variables))
	for _, name := range variables {
		declared = append(declared, cel.Variable(name, cel.ObjectType("google.protobuf.Struct")))
	}
	if env, err = env.Extend(declared...); err != nil {
		return nil, fmt.Errorf("declare variables: %w", err)
	}
	checked, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, compileError(issues)
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("is of type %s and not bool; compare it, for instance with == true", checked.OutputType())
	}
	return build(env, checked, text)
}

// Within compiles a condition that names the fields of one object directly, such
// as status.phase. Which fields there are is not known beforehand, so a result of
// unknown type is taken for a bool until it is evaluated.
func Within(text string) (*Expression, error) {
	env, err := lenient()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, compileError(issues)
	}
	if env, err = env.Extend(fieldsOf(parsed)...); err != nil {
		return nil, fmt.Errorf("declare fields: %w", err)
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, compileError(issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("is of type %s and not bool", t)
	}
	return build(env, checked, text)
}

// True evaluates the condition. The errors wrap ErrTooCostly or ErrNoAnswer and may
// quote what was looked at.
func (e *Expression) True(ctx context.Context, variables map[string]any) (bool, error) {
	value, _, err := e.evaluate(ctx, variables)
	if err != nil {
		return false, err
	}
	result, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("%w: it is of type %s and not bool", ErrNoAnswer, value.Type().TypeName())
	}
	return bool(result), nil
}

// evaluationError says in the terms of this package how an evaluation within ctx ended.
func evaluationError(ctx context.Context, err error) error {
	var cancelled interpreter.EvalCancelledError
	switch {
	case errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded:
		return ErrTooCostly
	case ctx.Err() != nil:
		return fmt.Errorf("%w within %s", ErrNoAnswer, TimeLimit)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	default:
		return nil
	}
}

func build(env *cel.Env, checked *cel.Ast, text string, more ...cel.ProgramOption) (*Expression, error) {
	program, err := env.Program(checked, append(more, cel.EvalOptions(cel.OptOptimize),
		cel.CostLimit(CostLimit), cel.InterruptCheckFrequency(interruptEvery))...)
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	return &Expression{text: text, program: program}, nil
}

// The environments. Making one costs more than compiling in it. The toolkit does
// not check expressions over the fields of an object, so for these a list may
// hold values of several types.
var (
	strict  = sync.OnceValues(func() (*cel.Env, error) { return environment(cel.HomogeneousAggregateLiterals()) })
	lenient = sync.OnceValues(func() (*cel.Env, error) { return environment() })
)

func environment(more ...cel.EnvOption) (*cel.Env, error) {
	env, err := cel.NewEnv(append(more,
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		ext.Strings(),
		ext.Sets(),
		ext.Encoders(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment: %w", err)
	}
	return env, nil
}

// fieldsOf declares every name that the expression uses and that CEL does not know
// as a type. Loop variables are among them, which does no harm: a loop declares
// its own.
func fieldsOf(parsed *cel.Ast) []cel.EnvOption {
	known := map[string]bool{"optional_type": true}
	for _, t := range stdlib.Types() {
		known[t.Name()] = true
	}
	var declared []cel.EnvOption
	celast.PreOrderVisit(parsed.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		if e.Kind() != celast.IdentKind {
			return
		}
		name := strings.TrimPrefix(e.AsIdent(), ".")
		if known[name] || strings.HasPrefix(name, "@") || strings.HasPrefix(name, "__") {
			return
		}
		known[name] = true
		declared = append(declared, cel.Variable(name, cel.DynType))
	}))
	return declared
}

// compileError says in one line what is wrong and where. Of several errors the first
// is told: the others mostly follow from it.
func compileError(issues *cel.Issues) error {
	all := issues.Errors()
	if len(all) == 0 {
		return issues.Err()
	}
	first := all[0]
	return fmt.Errorf("does not compile: line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1,
		strings.Join(strings.Fields(first.Message), " "))
}
