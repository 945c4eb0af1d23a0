package expr

import (
	"strings"

	"github.com/google/cel-go/cel"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// Any stands in a Reference for an element of a list, or an entry of a map whose key is
// not known before the evaluation.
const Any = "*"

// Reference is a field that an expression asks for: the name of the variable, and those
// of the fields below it.
type Reference []string

// String prints the reference as it is written in expressions.
func (r Reference) String() string {
	return strings.ReplaceAll(strings.Join(r, "."), "."+Any, "[]")
}

// walker collects references. What a loop runs through gives its variable a meaning.
type walker struct {
	scope map[string]Reference
	found []Reference
}

// references finds what the expression asks of the variables, and the reference that it is as a
// whole, nil where it is anything else.
func references(checked *cel.Ast, variables map[string]bool) (all []Reference, path Reference) {
	w := walker{scope: make(map[string]Reference, len(variables))}
	for name := range variables {
		w.scope[name] = Reference{name}
	}
	w.visit(checked.NativeRep().Expr())
	all, w.found = w.found, nil
	return all, w.chain(checked.NativeRep().Expr())
}

func (w *walker) visit(e celast.Expr) {
	if path := w.chain(e); path != nil {
		w.found = append(w.found, path)
		return
	}
	switch e.Kind() {
	case celast.SelectKind:
		w.visit(e.AsSelect().Operand())
	case celast.CallKind:
		if e.AsCall().IsMemberFunction() {
			w.visit(e.AsCall().Target())
		}
		w.visitAll(e.AsCall().Args())
	case celast.ListKind:
		w.visitAll(e.AsList().Elements())
	case celast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			w.visit(entry.AsMapEntry().Key())
			w.visit(entry.AsMapEntry().Value())
		}
	case celast.StructKind:
		for _, f := range e.AsStruct().Fields() {
			w.visit(f.AsStructField().Value())
		}
	case celast.ComprehensionKind:
		w.visitLoop(e.AsComprehension())
	default:
	}
}

func (w *walker) visitAll(all []celast.Expr) {
	for _, e := range all {
		w.visit(e)
	}
}

// visitLoop gives the variables of the loop their meaning inside it. Of what cannot be followed nothing is
// said; a loop over a map has its keys in the variable, which have no fields.
func (w *walker) visitLoop(loop celast.ComprehensionExpr) {
	w.visit(loop.IterRange())
	w.visit(loop.AccuInit())
	inner := walker{scope: make(map[string]Reference, len(w.scope))}
	for name, meaning := range w.scope {
		inner.scope[name] = meaning
	}
	delete(inner.scope, loop.AccuVar())
	delete(inner.scope, loop.IterVar())
	if loop.HasIterVar2() {
		delete(inner.scope, loop.IterVar2())
	} else if over := w.chain(loop.IterRange()); over != nil {
		inner.scope[loop.IterVar()] = below(over, Any)
	}
	inner.visit(loop.LoopCondition())
	inner.visit(loop.LoopStep())
	inner.visit(loop.Result())
	w.found = append(w.found, inner.found...)
}

// chain returns the reference that e is, nil where it is none.
func (w *walker) chain(e celast.Expr) Reference {
	switch e.Kind() {
	case celast.IdentKind:
		return w.scope[strings.TrimPrefix(e.AsIdent(), ".")]
	case celast.SelectKind:
		if of := w.chain(e.AsSelect().Operand()); of != nil {
			return below(of, e.AsSelect().FieldName())
		}
	case celast.CallKind:
		return w.index(e.AsCall())
	default:
	}
	return nil
}

// index is a[b], a[?b] or a.?b.
func (w *walker) index(call celast.CallExpr) Reference {
	switch call.FunctionName() {
	case operators.Index, operators.OptIndex, operators.OptSelect:
	default:
		return nil
	}
	of := w.chain(call.Args()[0])
	if of == nil {
		return nil
	}
	key := call.Args()[1]
	if key.Kind() != celast.LiteralKind {
		w.visit(key)
		return below(of, Any)
	}
	if name, ok := key.AsLiteral().(types.String); ok {
		return below(of, string(name))
	}
	return below(of, Any)
}

func below(of Reference, field string) Reference {
	return append(of[:len(of):len(of)], field)
}
