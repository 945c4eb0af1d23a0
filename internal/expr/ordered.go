package expr

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// ordered is a map that loops run through in the order of its keys. The language leaves the order open, and
// Go's is another one each time; what is made of a value has to be the same each time.
type ordered struct{ traits.Mapper }

// Iterator implements traits.Iterable.
func (m ordered) Iterator() traits.Iterator {
	var keys []ref.Val
	for it := m.Mapper.Iterator(); it.HasNext() == types.True; {
		keys = append(keys, it.Next())
	}
	slices.SortFunc(keys, compareKeys)
	return types.NewRefValList(types.DefaultTypeAdapter, keys).Iterator()
}

// compareKeys orders by value, and keys of several types by their type.
func compareKeys(a, b ref.Val) int {
	if c, ok := a.(traits.Comparer); ok && a.Type() == b.Type() {
		if order, ok := c.Compare(b).(types.Int); ok {
			return int(order)
		}
	}
	return cmp.Compare(fmt.Sprint(a.Type(), a.Value()), fmt.Sprint(b.Type(), b.Value()))
}

// adapter gives variables and literals such maps, at any depth.
type adapter struct{ types.Adapter }

// NativeToValue implements types.Adapter.
func (a adapter) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case map[string]any:
		return ordered{types.NewStringInterfaceMap(a, v)}
	case map[ref.Val]ref.Val:
		return ordered{types.NewRefValMap(a, v)}
	case []any:
		return types.NewDynamicList(a, v)
	case []ref.Val:
		return types.NewRefValList(a, v)
	default:
		return a.Adapter.NativeToValue(value)
	}
}

// literal makes the map of a literal an ordered one: the language makes these without asking
// the adapter.
type literal struct {
	interpreter.InterpretableConstructor
}

// Eval implements interpreter.Interpretable.
func (l literal) Eval(variables interpreter.Activation) ref.Val {
	return inOrder(l.InterpretableConstructor.Eval(variables))
}

// Exec implements interpreter.InterpretableV2.
func (l literal) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	return inOrder(l.InterpretableConstructor.Exec(frame))
}

func inOrder(value ref.Val) ref.Val {
	if m, ok := value.(traits.Mapper); ok {
		return ordered{m}
	}
	return value
}

// literals finds those of maps, before or after the ones of constants were made.
func literals(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	switch v := i.(type) {
	case interpreter.InterpretableConst:
		if _, ok := v.Value().(traits.Mapper); ok {
			return interpreter.NewConstValue(v.ID(), inOrder(v.Value())), nil
		}
	case interpreter.InterpretableConstructor:
		if v.Type() == types.MapType {
			return literal{v}, nil
		}
	}
	return i, nil
}
