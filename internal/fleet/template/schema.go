package template

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/bowline-dev/bowline/internal/expr"
)

// parametersPath is where a ClusterTemplate has its schema.
const parametersPath = "spec.parameters"

// types are those that a schema may name.
var types = []string{"array", "boolean", "integer", "number", "object", "string"}

// schema is the compiled schema of parameters. It is safe for concurrent use.
type schema struct {
	structural *structuralschema.Structural
	values     validation.SchemaValidator
	rules      *cel.Validator // nil where there are no rules
}

// newSchema compiles a schema as the API server would that of a custom resource.
// Without one there are no parameters.
func newSchema(ctx context.Context, raw *apiextensionsv1.JSON) (*schema, FieldErrors) {
	text := []byte(`{"type":"object"}`)
	if raw != nil && len(raw.Raw) > 0 {
		text = raw.Raw
	}
	if problems := keywords(parametersPath, text); len(problems) > 0 {
		return nil, problems
	}
	var external apiextensionsv1.JSONSchemaProps
	if err := json.Unmarshal(text, &external); err != nil {
		return nil, FieldErrors{{Path: parametersPath, Message: fmt.Sprintf("is no OpenAPI v3 schema: %v", err)}}
	}
	if external.Type != "object" {
		return nil, FieldErrors{{Path: child(parametersPath, "type"), Message: "has to be object: parameters have names"}}
	}
	var props apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(&external, &props, nil); err != nil {
		return nil, FieldErrors{{Path: parametersPath, Message: fmt.Sprintf("is no OpenAPI v3 schema: %v", err)}}
	}
	return compileSchema(ctx, &props)
}

func compileSchema(ctx context.Context, props *apiextensions.JSONSchemaProps) (*schema, FieldErrors) {
	at := field.NewPath("spec", "parameters")
	structural, err := structuralschema.NewStructural(props)
	if err != nil {
		return nil, FieldErrors{{Path: parametersPath, Message: fmt.Sprintf("is not structural: %v", err)}}
	}
	problems := fieldProblems(structuralschema.ValidateStructural(at, structural))
	problems = append(problems, inspect(parametersPath, structural)...)
	if len(problems) > 0 {
		return nil, problems
	}
	// What is found is remembered, so it must not depend on how long the caller waits.
	wrong, err := defaulting.ValidateDefaults(context.WithoutCancel(ctx), at, structural, false, true)
	if err != nil {
		return nil, FieldErrors{{Path: parametersPath, Message: fmt.Sprintf("has defaults that cannot be checked: %v", err)}}
	}
	if len(wrong) > 0 {
		return nil, fieldProblems(wrong)
	}
	values, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		return nil, FieldErrors{{Path: parametersPath, Message: fmt.Sprintf("cannot be used: %v", err)}}
	}
	return &schema{structural: structural, values: values, rules: cel.NewValidator(structural, false, celconfig.PerCallLimit)}, nil
}

// inspect finds what the library finds only when a value comes along: types that do not
// exist and rules that do not compile.
func inspect(path string, s *structuralschema.Structural) FieldErrors {
	var problems FieldErrors
	if s.Type != "" && !slices.Contains(types, s.Type) {
		problems = append(problems, FieldError{child(path, "type"), fmt.Sprintf("%q is none of %s", s.Type, strings.Join(types, ", "))})
	}
	if len(problems) == 0 {
		problems = rules(path, s)
	}
	for _, name := range sortedProperties(s.Properties) {
		property := s.Properties[name]
		problems = append(problems, inspect(child(path, "properties")+"["+name+"]", &property)...)
	}
	if s.Items != nil {
		problems = append(problems, inspect(child(path, "items"), s.Items)...)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil {
		problems = append(problems, inspect(child(path, "additionalProperties"), s.AdditionalProperties.Structural)...)
	}
	return problems
}

// rules compiles x-kubernetes-validations. Parameters are judged by themselves, not by what they were before.
func rules(path string, s *structuralschema.Structural) FieldErrors {
	if len(s.XValidations) == 0 {
		return nil
	}
	path = child(path, "x-kubernetes-validations")
	compiled, err := cel.Compile(s, model.SchemaDeclType(s, false), celconfig.PerCallLimit,
		environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()), cel.NewExpressionsEnvLoader())
	if err != nil {
		return FieldErrors{{path, err.Error()}}
	}
	var problems FieldErrors
	for i, rule := range compiled {
		switch at := child(element(path, i), "rule"); {
		case rule.Error != nil:
			problems = append(problems, FieldError{at, strings.Join(strings.Fields(rule.Error.Detail), " ")})
		case rule.MessageExpressionError != nil:
			problems = append(problems, FieldError{child(element(path, i), "messageExpression"), strings.Join(strings.Fields(rule.MessageExpressionError.Detail), " ")})
		case rule.UsesOldSelf:
			problems = append(problems, FieldError{at, "uses oldSelf, which is not known here; say what is right without it"})
		}
	}
	return problems
}

func sortedProperties(m map[string]structuralschema.Structural) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fieldProblems takes over what the library found, in an order that is the same every time.
func fieldProblems(list field.ErrorList) FieldErrors {
	problems := make(FieldErrors, 0, len(list))
	for _, err := range list {
		problems = append(problems, FieldError{Path: err.Field, Message: strings.Join(strings.Fields(err.ErrorBody()), " ")})
	}
	sortProblems(problems)
	return problems
}

// keywords refuses words that a schema does not have, such as a misspelt one, which the
// library's types would drop without a word.
func keywords(path string, text []byte) FieldErrors {
	var s map[string]json.RawMessage
	if err := json.Unmarshal(text, &s); err != nil || s == nil {
		return FieldErrors{{path, "has to be a schema: a map"}}
	}
	known := words()
	var problems FieldErrors
	for _, word := range sortedWords(s) {
		at, value := child(path, word), s[word]
		switch {
		case !known[word]:
			problems = append(problems, FieldError{at, "is no word of a schema"})
		case word == "properties":
			problems = append(problems, each(at, value)...)
		case word == "items", word == "additionalProperties", word == "not":
			if bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) {
				problems = append(problems, keywords(at, value)...)
			}
		case word == "allOf", word == "anyOf", word == "oneOf":
			var list []json.RawMessage
			if err := json.Unmarshal(value, &list); err != nil {
				problems = append(problems, FieldError{at, "has to be a list of schemas"})
			}
			for i, item := range list {
				problems = append(problems, keywords(element(at, i), item)...)
			}
		}
	}
	return problems
}

func each(path string, text []byte) FieldErrors {
	var properties map[string]json.RawMessage
	if err := json.Unmarshal(text, &properties); err != nil {
		return FieldErrors{{path, "has to be a map of schemas"}}
	}
	var problems FieldErrors
	for _, name := range sortedWords(properties) {
		problems = append(problems, keywords(path+"["+name+"]", properties[name])...)
	}
	return problems
}

func sortedWords(m map[string]json.RawMessage) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// words are those of the library's own type.
func words() map[string]bool {
	t := reflect.TypeFor[apiextensionsv1.JSONSchemaProps]()
	known := make(map[string]bool, t.NumField())
	for i := range t.NumField() {
		word, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known[word] = true
	}
	return known
}

// lookup says whether the schema has the field that a reference asks for. It stops where the
// schema says no more.
func (s *schema) lookup(fields expr.Reference) (problem string) {
	_, problem = descend(s.structural, fields)
	return problem
}

// descend follows the fields as far as the schema tells.
func descend(s *structuralschema.Structural, fields expr.Reference) (at *structuralschema.Structural, problem string) {
	for i, name := range fields {
		if s == nil || s.XPreserveUnknownFields || s.XIntOrString {
			return nil, ""
		}
		switch next, known := step(s, name); {
		case !known:
			return nil, "there is no parameter " + fields[:i+1].String() + ": " + alternatives(s)
		default:
			s = next
		}
	}
	return s, ""
}

// step goes to one field; nil where the schema does not say which one it is.
func step(s *structuralschema.Structural, name string) (next *structuralschema.Structural, known bool) {
	if property, ok := s.Properties[name]; ok && name != expr.Any {
		return &property, true
	}
	switch {
	case s.AdditionalProperties != nil:
		return s.AdditionalProperties.Structural, s.AdditionalProperties.Structural != nil || s.AdditionalProperties.Bool
	case name == expr.Any && s.Items != nil:
		return s.Items, true
	case name == expr.Any:
		return nil, true
	default:
		return nil, false
	}
}

func alternatives(s *structuralschema.Structural) string {
	if names := sortedProperties(s.Properties); len(names) > 0 {
		return "there are " + strings.Join(names, ", ")
	}
	return "the schema gives this one no fields"
}
