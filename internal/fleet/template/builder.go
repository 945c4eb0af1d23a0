package template

import (
	"fmt"
	"strings"

	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
)

// builder compiles values over one set of variables.
type builder struct {
	compiler *Compiler
	names    string
	scope    *expr.Scope
	// seen is told of every expression, where there is more to know about it.
	seen     func(path string, e *expr.Expression)
	problems FieldErrors
}

func (c *Compiler) builder(names ...string) (*builder, error) {
	key := strings.Join(names, ",")
	if kept, ok := c.scopes.Get(key); ok {
		return &builder{compiler: c, names: key, scope: kept.(*expr.Scope)}, nil
	}
	scope, err := expr.NewScope(names...)
	if err != nil {
		return nil, &failure.Error{Op: "declare", Kind: failure.Invalid, Object: key, Err: err}
	}
	c.scopes.Add(key, scope)
	return &builder{compiler: c, names: key, scope: scope}, nil
}

func (b *builder) problem(path, format string, args ...any) {
	b.problems = append(b.problems, FieldError{Path: path, Message: fmt.Sprintf(format, args...)})
}

// build makes a node of a JSON value; problems are noted.
func (b *builder) build(path string, value any) node {
	switch v := value.(type) {
	case map[string]any:
		return b.mapping(path, v)
	case []any:
		items, fixed := make(sequence, len(v)), true
		for i, item := range v {
			items[i] = b.build(element(path, i), item)
			fixed = fixed && isConstant(items[i])
		}
		if fixed {
			return constant{v}
		}
		return items
	case string:
		return b.text(path, v)
	case nil, bool, int64, float64:
		return constant{v}
	default:
		b.problem(path, "is a Go value of type %T and no JSON", v)
		return constant{}
	}
}

func (b *builder) mapping(path string, m map[string]any) node {
	keys := keysOf(m)
	values, fixed := make([]node, len(keys)), true
	for i, key := range keys {
		if strings.Contains(key, opening) {
			b.problem(child(path, key), "keys are not expanded; give the whole map as one expression: ${ {'a-' + cluster.name: 'b'} }")
		}
		values[i] = b.build(child(path, key), m[key])
		fixed = fixed && isConstant(values[i])
	}
	if fixed {
		return constant{m}
	}
	return mapping{keys: keys, values: values}
}

func isConstant(n node) bool {
	_, ok := n.(constant)
	return ok
}

func (b *builder) text(path, s string) node {
	if !strings.Contains(s, opening) {
		return constant{s}
	}
	parts, err := split(s)
	if err != nil {
		b.problem(path, "%v", err)
		return constant{s}
	}
	t := text{path: path, parts: make([]piece, len(parts))}
	for i, p := range parts {
		if !p.expression {
			t.parts[i].literal = p.text
			continue
		}
		if t.parts[i].expression = b.expression(path, strings.TrimSpace(p.text)); t.parts[i].expression == nil {
			return constant{s}
		}
	}
	return t
}

// bare compiles an expression that is written without ${ }; nil where it does not compile.
func (b *builder) bare(path, s string) *expr.Expression {
	if strings.HasPrefix(strings.TrimSpace(s), opening) {
		b.problem(path, "is an expression already; write it without ${ }")
		return nil
	}
	return b.expression(path, strings.TrimSpace(s))
}

func (b *builder) expression(path, s string) *expr.Expression {
	key := expressionKey{names: b.names, text: s}
	compiled, ok := b.compiler.remembered(key)
	if !ok {
		var err error
		if compiled, err = b.scope.Compile(s); err != nil {
			b.problem(path, "%s %v; the variables are %s", quote(s), err, strings.ReplaceAll(b.names, ",", ", "))
			return nil
		}
		if len(s) <= keptLength {
			b.compiler.expressions.Add(key, compiled)
		}
	}
	if b.seen != nil {
		b.seen(path, compiled)
	}
	return compiled
}

func (c *Compiler) remembered(key expressionKey) (*expr.Expression, bool) {
	kept, ok := c.expressions.Get(key)
	if !ok {
		return nil, false
	}
	return kept.(*expr.Expression), true
}
