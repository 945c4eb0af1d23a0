package template

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Template is a compiled ClusterTemplate. It is safe for concurrent use.
type Template struct {
	schema  *schema
	objects []entry
}

// entry is one object of the template.
type entry struct {
	path          string
	when, forEach *expr.Expression // nil where there is none
	body          node
	size          int // of what is the same in every copy
}

// CheckTemplate says whether the template can be used at all: its schema is structural and its defaults fit it, its expressions
// compile, and the variables and parameters that they ask for exist. The error is a failure.Error of
// kind Invalid with all FieldErrors as its cause.
func (c *Compiler) CheckTemplate(ctx context.Context, t *fleetv1.ClusterTemplate) error {
	if _, err := c.compiled(ctx, t); err != nil {
		return &failure.Error{Op: "check", Kind: failure.Invalid, Object: nameOf(t), Err: err}
	}
	return nil
}

// compiled returns the template as it was compiled before, if it was. Templates with the same content
// are one. The error is FieldErrors.
func (c *Compiler) compiled(ctx context.Context, t *fleetv1.ClusterTemplate) (*Template, error) {
	text, err := json.Marshal(t.Spec)
	if err != nil {
		return nil, FieldErrors{{Path: "spec", Message: err.Error()}}
	}
	key := sha256.Sum256(text)
	kept, ok := c.templates.Get(key)
	if !ok {
		var a answer
		a.template, a.problems = c.compile(ctx, &t.Spec)
		kept = a
		c.templates.Add(key, kept)
	}
	a := kept.(answer)
	if len(a.problems) > 0 {
		return nil, a.problems
	}
	return a.template, nil
}

// answer is what compiling a template gave. One that is wrong is remembered as well.
type answer struct {
	template *Template
	problems FieldErrors
}

func (c *Compiler) compile(ctx context.Context, spec *fleetv1.ClusterTemplateSpec) (*Template, FieldErrors) {
	s, problems := newSchema(ctx, spec.Parameters)
	compiled := &Template{schema: s}
	if len(spec.Objects) == 0 {
		problems = append(problems, FieldError{"spec.objects", "is empty; a template has at least one object"})
	}
	for i := range spec.Objects {
		e, wrong := c.compileEntry(element("spec.objects", i), &spec.Objects[i], s)
		compiled.objects = append(compiled.objects, e)
		problems = append(problems, wrong...)
	}
	return compiled, problems
}

// compileEntry compiles one object. Without a schema, because that is wrong itself, it is not
// checked which parameters there are.
func (c *Compiler) compileEntry(path string, o *fleetv1.TemplateObject, s *schema) (entry, FieldErrors) {
	names := []string{"cluster", "parameters"}
	outer, err := c.builder(names...)
	if err != nil {
		return entry{}, FieldErrors{{path, err.Error()}}
	}
	e := entry{path: path, size: len(o.Template.Raw)}
	seen := &asked{schema: s}
	outer.seen, seen.builder = seen.expression, outer
	inner := outer
	if o.ForEach != "" {
		e.forEach = outer.bare(child(path, "forEach"), o.ForEach)
		if inner, err = c.builder("cluster", "index", "item", "parameters"); err != nil {
			return entry{}, FieldErrors{{path, err.Error()}}
		}
		inner.problems = outer.problems
		inner.seen, seen.builder = seen.expression, inner
		if e.forEach != nil {
			seen.item, _ = e.forEach.Path()
		}
	}
	if o.When != "" {
		e.when = inner.bare(child(path, "when"), o.When)
	}
	e.body = inner.object(child(path, "template"), o.Template.Raw)
	return e, inner.problems
}

// object compiles the object itself.
func (b *builder) object(path string, raw []byte) node {
	var body map[string]any
	if err := utiljson.Unmarshal(raw, &body); err != nil || body == nil {
		b.problem(path, "has to be an object")
		return constant{}
	}
	for _, name := range []string{"apiVersion", "kind"} {
		if s, ok := body[name].(string); !ok || s == "" {
			b.problem(child(path, name), "is missing")
		}
	}
	metadata, _ := body["metadata"].(map[string]any)
	if s, ok := metadata["name"].(string); !ok || s == "" {
		b.problem(path+".metadata.name", "is missing; an object that is delivered has a name")
	}
	return b.build(path, body)
}

// asked checks which fields expressions ask for.
type asked struct {
	builder *builder
	schema  *schema
	// item is what forEach runs through, where that is a parameter as it is.
	item expr.Reference
}

// facts are the fields of the variable cluster.
var facts = []string{"annotations", "labels", "name", "namespace", "parameters"}

func (a *asked) expression(path string, e *expr.Expression) {
	if a.schema == nil {
		return
	}
	for _, reference := range e.References() {
		if problem := a.reference(reference); problem != "" {
			a.builder.problem(path, "%s: %s", quote(e.String()), problem)
		}
	}
}

func (a *asked) reference(r expr.Reference) string {
	if r[0] == "item" && a.item != nil {
		r = slices.Concat(a.item, expr.Reference{expr.Any}, r[1:])
	}
	if r[0] == "cluster" && len(r) > 1 {
		switch {
		case r[1] == "parameters":
			r = r[1:]
		case !slices.Contains(facts, r[1]):
			return "there is no " + r.String() + ": cluster has " + strings.Join(facts, ", ")
		}
	}
	if r[0] != "parameters" {
		return ""
	}
	return a.schema.lookup(r[1:])
}

func nameOf(t *fleetv1.ClusterTemplate) string {
	return "ClusterTemplate/" + t.Namespace + "/" + t.Name
}
