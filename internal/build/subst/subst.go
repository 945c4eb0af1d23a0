// Package subst is the build step that replaces variables in objects after they
// were built: ${var} and the shell's string functions on it, as users of
// postBuild.substitute know them.
package subst

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Annotation is the annotation or label that keeps an object out of the
// substitution when its value is Disabled.
const (
	Annotation = "kustomize.toolkit.fluxcd.io/substitute"
	Disabled   = "disabled"
)

// nameRule is the rule of the toolkit for names of variables.
const nameRule = `^[_[:alpha:]][_[:alpha:][:digit:]]*$`

// Variables is a checked set of variables.
type Variables struct {
	values map[string]string
	strict bool
}

// New checks the names in values. Line breaks in values are dropped, as the
// toolkit does. With strict, a variable that has neither a value nor a default
// is an error instead of an empty string. The error is of kind Invalid and
// names the first bad name in alphabetical order.
func New(values map[string]string, strict bool) (Variables, error) {
	rule := regexp.MustCompile(nameRule)
	clean := make(map[string]string, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !rule.MatchString(name) {
			return Variables{}, &failure.Error{Op: "substitute", Kind: failure.Invalid, Object: fmt.Sprintf("variable %q", name),
				Err: errors.New("the name must match " + nameRule), Remedy: "rename it in postBuild"}
		}
		clean[name] = strings.ReplaceAll(values[name], "\n", "")
	}
	return Variables{values: clean, strict: strict}, nil
}

// Apply replaces the variables in u, in place. Replacing works on the YAML text
// of the object, so a variable can become a number or a whole list. Errors are
// of kind Invalid and name the object.
func (v Variables) Apply(u *unstructured.Unstructured) error {
	if u.GetLabels()[Annotation] == Disabled || u.GetAnnotations()[Annotation] == Disabled {
		return nil
	}
	if !mentionsVariable(u.Object) {
		return nil // text without a dollar sign is its own substitution
	}
	fail := func(err error) error {
		return &failure.Error{Op: "substitute variables in", Kind: failure.Invalid, Object: object.IDOf(u).String(), Err: err}
	}
	text, err := yaml.Marshal(u.Object)
	if err != nil {
		return fail(err)
	}
	out, err := envsubst.Eval(string(text), v.lookup)
	if err != nil {
		return fail(err)
	}
	data, err := yaml.YAMLToJSON([]byte(out))
	if err != nil {
		return fail(fmt.Errorf("the result is no YAML: %w", err))
	}
	if !bytes.HasPrefix(data, []byte("{")) {
		return fail(errors.New("the result is no object"))
	}
	var next unstructured.Unstructured
	if err := next.UnmarshalJSON(data); err != nil {
		return fail(err)
	}
	u.Object = next.Object
	return nil
}

func (v Variables) lookup(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok || !v.strict
}

// mentionsVariable reports whether a dollar sign is anywhere in value.
func mentionsVariable(value any) bool {
	switch value := value.(type) {
	case string:
		return strings.Contains(value, "$")
	case map[string]any:
		for k, v := range value {
			if strings.Contains(k, "$") || mentionsVariable(v) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(value, mentionsVariable)
	}
	return false
}
