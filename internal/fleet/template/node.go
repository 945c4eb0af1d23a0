package template

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/bowline-dev/bowline/internal/expr"
)

// node is a JSON value whose expressions are compiled. It is not changed after that.
type node interface {
	expand(ctx context.Context, r *run) (any, error)
}

type (
	// constant is a value without expressions.
	constant struct{ value any }
	// mapping is a map, in the order of its keys.
	mapping struct {
		keys   []string
		values []node
	}
	sequence []node
	// text is a string with expressions.
	text struct {
		path  string
		parts []piece
	}
	// piece is an expression, or else literal text.
	piece struct {
		literal    string
		expression *expr.Expression
	}
)

// expand returns a copy, for whoever gets an object may change it.
func (c constant) expand(context.Context, *run) (any, error) {
	return runtime.DeepCopyJSONValue(c.value), nil
}

// expand leaves out fields whose expression gives no value.
func (m mapping) expand(ctx context.Context, r *run) (any, error) {
	out := make(map[string]any, len(m.keys))
	for i, key := range m.keys {
		switch value, err := m.values[i].expand(ctx, r); {
		case errors.Is(err, expr.ErrAbsent):
		case err != nil:
			return nil, err
		default:
			out[key] = value
		}
	}
	return out, nil
}

// expand leaves out elements whose expression gives no value.
func (s sequence) expand(ctx context.Context, r *run) (any, error) {
	out := make([]any, 0, len(s))
	for _, item := range s {
		switch value, err := item.expand(ctx, r); {
		case errors.Is(err, expr.ErrAbsent):
		case err != nil:
			return nil, err
		default:
			out = append(out, value)
		}
	}
	return out, nil
}

// expand gives the expression's own value where it is all that the string holds.
func (t text) expand(ctx context.Context, r *run) (any, error) {
	if len(t.parts) == 1 && t.parts[0].expression != nil {
		value, err := r.value(ctx, t.path, t.parts[0].expression)
		if err != nil {
			return nil, err
		}
		return value, nil
	}
	return t.join(ctx, r)
}

// join puts the values into the text. What is wrong with one of them does not hide what is
// wrong with the next.
func (t text) join(ctx context.Context, r *run) (any, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.expression == nil {
			b.WriteString(p.literal)
			continue
		}
		value, err := r.value(ctx, t.path, p.expression)
		switch {
		case errors.Is(err, expr.ErrAbsent):
			r.problem(t.path, "%s gives no value to put into the text; say what else with .orValue('…')", quote(p.expression.String()))
			continue
		case err != nil:
			return nil, err
		}
		switch v := value.(type) {
		case string:
			b.WriteString(v)
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case bool:
			b.WriteString(strconv.FormatBool(v))
		case failed:
		default:
			r.problem(t.path, "%s gives %s; only strings, whole numbers and booleans can be put into a text: let the string be this expression alone, or make its value a string", quote(p.expression.String()), typeOf(value))
		}
	}
	return b.String(), nil
}

// typeOf names the type of a JSON value for people.
func typeOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64:
		return "a whole number"
	case float64:
		return "a fraction"
	case string:
		return "a string"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	default:
		return fmt.Sprintf("a %T", value)
	}
}

// keysOf returns the keys in order, so that problems come in the same order every time.
func keysOf(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// child is the path of a field below path.
func child(path, key string) string {
	switch {
	case strings.ContainsAny(key, ".[]/"):
		return path + "[" + key + "]"
	case path == "":
		return key
	default:
		return path + "." + key
	}
}

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
