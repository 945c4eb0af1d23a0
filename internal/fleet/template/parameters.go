package template

import (
	"cmp"
	"context"
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// givenPath is where a FleetCluster gives its parameters.
const givenPath = "spec.template.parameters"

// check returns the parameters with defaults, or all that is wrong with them.
func (s *schema) check(ctx context.Context, raw []byte) (map[string]any, FieldErrors) {
	values := map[string]any{}
	if len(raw) > 0 && string(raw) != "null" {
		if err := utiljson.Unmarshal(raw, &values); err != nil {
			return nil, FieldErrors{{givenPath, "have to be a map of names and values"}}
		}
	}
	var problems FieldErrors
	unknown := pruning.PruneWithOptions(runtime.DeepCopyJSON(values), s.structural, false, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		problems = append(problems, FieldError{givenPath + "." + path, "the template has no such parameter"})
	}
	defaulting.Default(values, s.structural)
	defaulting.PruneNonNullableNullsWithoutDefaults(values, s.structural)

	at := field.NewPath("spec", "template", "parameters")
	wrong := validation.ValidateCustomResource(at, values, s.values)
	wrong = append(wrong, listtype.ValidateListSetsAndMaps(at, s.structural, values)...)
	if s.rules != nil && len(wrong) == 0 {
		broken, _ := s.rules.Validate(ctx, at, s.structural, values, nil, celconfig.RuntimeCELCostBudget)
		wrong = append(wrong, broken...)
	}
	for _, err := range wrong {
		problems = append(problems, FieldError{err.Field, violation(err)})
	}
	sortProblems(problems)
	if len(problems) > 0 {
		return nil, problems
	}
	return values, nil
}

// violation says what is wrong without the path, which the library repeats.
func violation(err *field.Error) string {
	detail := strings.Join(strings.Fields(err.Detail), " ")
	if _, rest, ok := strings.Cut(detail, " in body "); ok {
		detail = rest
	}
	switch err.Type {
	case field.ErrorTypeRequired:
		return "is required"
	case field.ErrorTypeTypeInvalid, field.ErrorTypeInvalid:
		if detail != "" {
			return detail
		}
	default:
	}
	return strings.Join(strings.Fields(err.ErrorBody()), " ")
}

// Parameters returns the parameters of the cluster, checked against the template's schema, with defaults.
// The error holds a RenderError with every violation.
func (c *Compiler) Parameters(ctx context.Context, t *fleetv1.ClusterTemplate, cluster *fleetv1.FleetCluster) (map[string]any, error) {
	compiled, err := c.compiled(ctx, t)
	if err != nil {
		return nil, unusable(t, cluster, err)
	}
	return compiled.parametersOf(ctx, t, cluster)
}

// ClusterVariables are what expressions know of a cluster: `cluster`, and `parameters`, which are those that Parameters
// returned, or nil for a cluster without a template.
func ClusterVariables(c *fleetv1.FleetCluster, parameters map[string]any) Variables {
	if parameters == nil {
		parameters = map[string]any{}
	}
	return Variables{
		"parameters": parameters,
		"cluster": map[string]any{
			"name": c.Name, "namespace": c.Namespace,
			"labels": anyMap(c.Labels), "annotations": anyMap(c.Annotations), "parameters": parameters,
		},
	}
}

func anyMap(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// sortProblems puts problems into the order of their paths: the library goes through maps.
func sortProblems(problems FieldErrors) {
	slices.SortFunc(problems, func(a, b FieldError) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Message, b.Message))
	})
}
