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
	// origins names the objects that hold them, where the Kustomization does not.
	origins map[string]string
	strict  bool
	// left is how many bytes all objects together may yet grow by.
	left *int
}

// New checks the names in values. Line breaks in values are dropped, as the
// toolkit does. origins may name, for messages, the object that holds a variable.
// With strict, a variable that has neither a value nor a default is an error
// instead of an empty string. The error is of kind Invalid and names the first bad
// name in alphabetical order.
//
// No message, of New or Apply, holds a value: it may be a secret.
func New(values, origins map[string]string, strict bool) (Variables, error) {
	rule := regexp.MustCompile(nameRule)
	clean := make(map[string]string, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !rule.MatchString(name) {
			return Variables{}, misnamed(name, origins[name])
		}
		clean[name] = strings.ReplaceAll(values[name], "\n", "")
	}
	left := maxGrowth
	return Variables{values: clean, origins: origins, strict: strict, left: &left}, nil
}

func misnamed(name, origin string) error {
	at, remedy := fmt.Sprintf("variable %q", name), "rename it in spec.postBuild.substitute"
	if origin != "" {
		at, remedy = fmt.Sprintf("variable %q, a key of %s", name, origin), "rename the key, or keep what is no variable in another object"
	}
	return &failure.Error{Op: "substitute", Kind: failure.Invalid, Object: at, Err: errors.New("the name must match " + nameRule), Remedy: remedy}
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
	fail := func(err error, remedy string) error {
		return &failure.Error{Op: "substitute variables in", Kind: failure.Invalid, Object: object.IDOf(u).String(), Err: err, Remedy: remedy}
	}
	text, err := yaml.Marshal(u.Object)
	if err != nil {
		return fail(err, "")
	}
	l := lookup{Variables: v, used: map[string]bool{}}
	if err := l.spend(string(text)); err != nil {
		return fail(err, "shorten the values, or name them less often")
	}
	out, err := envsubst.Eval(string(text), l.get)
	switch {
	case err != nil && l.missing != "":
		return fail(fmt.Errorf("variable %q has no value and no default", l.missing),
			fmt.Sprintf("set it in spec.postBuild, give it a default as in ${%[1]s:=value}, or write $${%[1]s} for a plain ${%[1]s}", l.missing))
	case err != nil: // what is wrong is the text, and the parser quotes nothing
		return fail(err, "write $${ for a plain ${")
	}
	next, err := parse(out)
	if err != nil {
		return fail(v.blame(string(text), l.used, err), "correct the value, or put quotes around the variable")
	}
	u.Object = next
	return nil
}

// lookup is the use of variables by one object.
type lookup struct {
	Variables
	used map[string]bool
	// missing is the variable without a value that was asked for last.
	missing string
}

func (l *lookup) get(name string) (string, bool) {
	value, ok := l.values[name]
	if ok {
		l.used[name] = true
	} else if l.strict {
		l.missing = name
	}
	return value, ok || !l.strict
}

// Ways in which a result can be no object. What a parser says of it is left out,
// since it quotes the text.
var (
	errNoYAML   = errors.New("no valid YAML")
	errNoObject = errors.New("no object with apiVersion and kind")
)

func parse(text string) (map[string]any, error) {
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, errNoYAML
	}
	if !bytes.HasPrefix(data, []byte("{")) {
		return nil, errNoObject
	}
	var next unstructured.Unstructured
	if err := next.UnmarshalJSON(data); err != nil {
		return nil, errNoObject
	}
	return next.Object, nil
}

// blame finds the variable whose value makes the result of a substitution what
// err says: with a harmless value instead of that one the result is fine.
func (v Variables) blame(text string, used map[string]bool, err error) error {
	names := slices.Sorted(maps.Keys(used))
	for _, name := range names {
		out, evalErr := envsubst.Eval(text, func(asked string) (string, bool) {
			if asked == name {
				return "x", true
			}
			return v.values[asked], true
		})
		if evalErr != nil {
			continue
		}
		if _, stillErr := parse(out); stillErr == nil {
			return fmt.Errorf("the value of %s makes it %w", v.named(name), err)
		}
	}
	all := make([]string, 0, len(names))
	for _, name := range names {
		all = append(all, v.named(name))
	}
	return fmt.Errorf("the values together make it %w: %s", err, strings.Join(all, ", "))
}

// named names a variable and where its value is.
func (v Variables) named(name string) string {
	if origin := v.origins[name]; origin != "" {
		return fmt.Sprintf("variable %q, a key of %s,", name, origin)
	}
	return fmt.Sprintf("variable %q", name)
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
