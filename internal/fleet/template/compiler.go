package template

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/utils/lru"

	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Sizes of what a Compiler remembers. What is not remembered is compiled again.
const (
	keptScopes      = 16
	keptExpressions = 2048
	keptTemplates   = 64
	// keptLength is the length of the longest expression that is remembered.
	keptLength = 4096
)

// Compiler compiles templates and expressions, and remembers them, so that a template is compiled once for
// a thousand clusters. It is safe for concurrent use. Make one with NewCompiler.
type Compiler struct {
	scopes      *lru.Cache // names → *expr.Scope
	expressions *lru.Cache // expressionKey → *expr.Expression
	templates   *lru.Cache // digest of a spec → *Template
}

// expressionKey: the same text means something else where there are other variables.
type expressionKey struct{ names, text string }

// NewCompiler returns a Compiler that remembers nothing yet.
func NewCompiler() *Compiler {
	return &Compiler{scopes: lru.New(keptScopes), expressions: lru.New(keptExpressions), templates: lru.New(keptTemplates)}
}

// Expand returns a copy of the JSON value in which the expressions in strings are replaced by what they give.
// at is the path of the value, for errors; may be empty. Keys of maps are not expanded: one that holds an expression is refused.
// The error is a failure.Error of kind Invalid with all FieldErrors as its cause, or of kind
// Timeout where ctx ended.
func (c *Compiler) Expand(ctx context.Context, at string, value any, vars Variables) (any, error) {
	b, err := c.builder(slices.Sorted(maps.Keys(vars))...)
	if err != nil {
		return nil, err
	}
	root := b.build(at, value)
	r := &run{variables: vars, problems: b.problems}
	if len(r.problems) > 0 {
		return nil, expansionError(ctx, r.problems)
	}
	expanded, err := root.expand(ctx, r)
	if errors.Is(err, expr.ErrAbsent) {
		r.problem(at, "the expression gives no value; say what else with .orValue('…')")
	}
	if len(r.problems) > 0 {
		return nil, expansionError(ctx, r.problems)
	}
	return expanded, nil
}

// ExpandString is Expand for a string that has to stay one: values are put into the text
// also where it is a single expression.
func (c *Compiler) ExpandString(ctx context.Context, at, value string, vars Variables) (string, error) {
	expanded, err := c.Expand(ctx, at, value, vars)
	if err != nil {
		return "", err
	}
	switch v := expanded.(type) {
	case string:
		return v, nil
	case int64, bool:
		return fmt.Sprint(v), nil
	default:
		return "", expansionError(ctx, FieldErrors{{Path: at, Message: "gives " + typeOf(v) + "; a string is needed"}})
	}
}

// True evaluates a condition that is written without ${ }. Errors are those of Expand.
func (c *Compiler) True(ctx context.Context, at, condition string, vars Variables) (bool, error) {
	b, err := c.builder(slices.Sorted(maps.Keys(vars))...)
	if err != nil {
		return false, err
	}
	compiled := b.bare(at, condition)
	r := &run{variables: vars, problems: b.problems}
	if compiled == nil {
		return false, expansionError(ctx, r.problems)
	}
	holds, err := r.condition(ctx, at, compiled)
	if err != nil || len(r.problems) > 0 {
		return false, expansionError(ctx, r.problems)
	}
	return holds, nil
}

// Check says whether Expand can compile the value where the variables of these names are given.
func (c *Compiler) Check(at string, value any, names ...string) error {
	b, err := c.builder(slices.Sorted(slices.Values(names))...)
	if err != nil {
		return err
	}
	if b.build(at, value); len(b.problems) > 0 {
		return expansionError(context.Background(), b.problems)
	}
	return nil
}

// CheckCondition says whether True can compile the condition where the variables of these names are given.
func (c *Compiler) CheckCondition(at, condition string, names ...string) error {
	b, err := c.builder(slices.Sorted(slices.Values(names))...)
	if err != nil {
		return err
	}
	if b.bare(at, condition); len(b.problems) > 0 {
		return expansionError(context.Background(), b.problems)
	}
	return nil
}

func expansionError(ctx context.Context, problems FieldErrors) error {
	kind := failure.Invalid
	if ctx.Err() != nil {
		kind = failure.Timeout
	}
	return &failure.Error{Op: "expand", Kind: kind, Err: problems}
}
