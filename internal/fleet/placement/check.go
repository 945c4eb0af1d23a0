package placement

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	kjson "sigs.k8s.io/json"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// Check returns all that is wrong with a Placement, as far as that can be told without knowing its clusters: what Broken
// says, expressions that do not compile, and specs that are none. What an expression will give is not known, so
// a field that holds one is only checked to exist.
func (f *Fleet) Check(placement string) template.FieldErrors {
	p := f.find(placement)
	if p == nil {
		return nil
	}
	var all template.FieldErrors
	for _, err := range p.problems {
		all = append(all, fieldErrors(err)...)
	}
	c := checker{compiler: f.compiler, namespace: p.Namespace}
	byName := map[string]*pattern{}
	for i := range p.units {
		u := &p.units[i]
		byName[u.name] = u
		if u.when != "" {
			all = append(all, fieldErrors(f.compiler.CheckCondition(u.at+".when", u.when, variables...))...)
		}
		all = append(all, c.spec(u.kind, u.field, u.value)...)
	}
	for i := range p.Spec.Overrides {
		o := &p.Spec.Overrides[i]
		if u := byName[o.Unit]; u != nil {
			all = append(all, c.override(u, fmt.Sprintf("spec.overrides[%d].patch", i), o.Patch.Raw)...)
		}
	}
	return all
}

// Rivals names the Placements that have a unit of the same kind, namespace and name as this one, with the unit. A cluster for
// which both are gets it of one of them only.
func (f *Fleet) Rivals(placement string) map[string]string {
	p := f.find(placement)
	if p == nil {
		return nil
	}
	own := map[string]bool{}
	for i := range p.units {
		own[p.idOf(&p.units[i])] = true
	}
	all := map[string]string{}
	for _, other := range f.placed {
		for i := range other.units {
			if id := other.idOf(&other.units[i]); other != p && own[id] {
				all[other.Name] = id
			}
		}
	}
	return all
}

func (p *placed) idOf(u *pattern) string {
	return u.kind + "/" + namespaceOf(p.Spec.Namespace) + "/" + u.name
}

// variables are what expressions of Placements know.
var variables = []string{"cluster", "parameters"}

// fieldErrors says an error of this room, or of templates, field by field.
func fieldErrors(err error) template.FieldErrors {
	var all template.FieldErrors
	var f *failure.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &all):
		return all
	case errors.As(err, &f) && f.Err != nil:
		message := f.Err.Error()
		if f.Remedy != "" {
			message += "; " + f.Remedy
		}
		return template.FieldErrors{{Path: f.Object, Message: message}}
	}
	return template.FieldErrors{{Message: err.Error()}}
}

// checker checks specs of units before it is known for which clusters they are.
type checker struct {
	compiler  *template.Compiler
	namespace string
}

// override checks a unit as it is where the patch applies. What is wrong with the unit already is not told again.
func (c checker) override(u *pattern, field string, patch []byte) template.FieldErrors {
	merged, err := jsonpatch.MergePatch(u.raw, patch)
	var value any
	if err == nil {
		err = json.Unmarshal(merged, &value)
	}
	if err != nil {
		return template.FieldErrors{{Path: field, Message: "is no JSON merge patch of the unit's spec: " + err.Error()}}
	}
	before := c.spec(u.kind, field, u.value)
	return slices.DeleteFunc(c.spec(u.kind, field, value), func(e template.FieldError) bool { return slices.Contains(before, e) })
}

// spec checks the spec of a unit of a kind.
func (c checker) spec(kind, field string, value any) template.FieldErrors {
	if problems := fieldErrors(c.compiler.Check(field, value, variables...)); len(problems) > 0 {
		return problems
	}
	m, ok := value.(map[string]any)
	if !ok {
		return template.FieldErrors{{Path: field, Message: fmt.Sprintf("is %T and no spec; write the spec of a %s", value, kind)}}
	}
	known, open := settled(m)
	problems := decode(kind, field, known, true)
	for _, at := range open {
		problems = append(problems, decode(kind, field, at, false)...)
	}
	for _, name := range requiredOf(kind) {
		if _, ok := m[name]; !ok {
			problems = append(problems, template.FieldError{Path: field + "." + name, Message: "is required"})
		}
	}
	if _, chart := m["chart"]; kind == helmv2.HelmReleaseKind {
		if _, ref := m["chartRef"]; chart == ref {
			problems = append(problems, template.FieldError{Path: field, Message: "exactly one of chart and chartRef is needed; set one of the two"})
		}
	}
	return append(problems, c.references(kind, field, m)...)
}

func requiredOf(kind string) []string {
	if kind == kustomizev1.KustomizationKind {
		return []string{"interval", "prune", "sourceRef"}
	}
	return []string{"interval"}
}

// decode reads a value as the spec of a kind, and tells the fields that there are not. What cannot be read is told
// where the value is all of the spec.
func decode(kind, field string, value any, whole bool) template.FieldErrors {
	raw, err := json.Marshal(value)
	if err != nil {
		return template.FieldErrors{{Path: field, Message: err.Error()}}
	}
	var into any = &helmv2.HelmReleaseSpec{}
	if kind == kustomizev1.KustomizationKind {
		into = &kustomizev1.KustomizationSpec{}
	}
	unknown, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		if !whole {
			return nil // it is there, and has no value yet
		}
		return template.FieldErrors{{Path: field, Message: "is no spec of a " + kind + ": " + err.Error()}}
	}
	var all template.FieldErrors
	for _, err := range unknown {
		e := template.FieldError{Path: field, Message: err.Error()}
		var at kjson.FieldError
		if errors.As(err, &at) {
			e = template.FieldError{Path: field + "." + at.FieldPath(), Message: "a " + kind + " has no such field"}
		}
		all = append(all, e)
	}
	return all
}

// settled returns the part of a spec that no expression decides, and each field that one decides, by itself
// and without a value.
func settled(m map[string]any) (known map[string]any, open []any) {
	known = map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		value, fields, ok := settledValue(m[key])
		if ok {
			known[key] = value
		}
		for _, f := range fields {
			open = append(open, map[string]any{key: f})
		}
	}
	return known, open
}

func settledValue(value any) (known any, open []any, ok bool) {
	switch v := value.(type) {
	case string:
		if strings.Contains(v, "${") {
			return nil, []any{nil}, false
		}
	case map[string]any:
		known, open := settled(v)
		return known, open, true
	case []any:
		items := []any{}
		for _, item := range v {
			known, fields, ok := settledValue(item)
			if ok {
				items = append(items, known)
			}
			for _, f := range fields {
				open = append(open, []any{f})
			}
		}
		return items, open, true
	}
	return value, nil, true
}

// references checks where a unit is delivered from, as far as it says so.
func (c checker) references(kind, field string, m map[string]any) template.FieldErrors {
	var all template.FieldErrors
	for _, path := range []string{"sourceRef", "chartRef", "chart.spec.sourceRef"} {
		if (path == "sourceRef") != (kind == kustomizev1.KustomizationKind) {
			continue
		}
		ref := m
		for _, p := range strings.Split(path, ".") {
			ref, _ = ref[p].(map[string]any)
		}
		given := func(name string) string {
			s, _ := ref[name].(string)
			if strings.Contains(s, "${") {
				return ""
			}
			return s
		}
		at := field + "." + path
		if ns := given("namespace"); ns != "" && ns != c.namespace {
			all = append(all, template.FieldError{Path: at + ".namespace", Message: errElsewhere.Error() + "; " + remedyElsewhere})
		}
		if k := given("kind"); k != "" {
			if _, err := specOf(k); err != nil {
				all = append(all, template.FieldError{Path: at + ".kind", Message: err.Error() + "; " + remedyKind})
			}
		}
	}
	return all
}
