package helm

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
)

const (
	// schemaAt is where the schema of a chart is, for references inside of it.
	schemaAt = "file:///values.schema.json"
	// maxViolations bounds a message.
	maxViolations = 100
)

// templateValues returns the top-level values that templates see, the chart's own
// defaults below what is given.
func (req Request) templateValues(chart *chartv2.Chart, config map[string]any, caps *common.Capabilities) (common.Values, error) {
	options := common.ReleaseOptions{
		Name: req.Release.Name, Namespace: req.Release.Namespace, Revision: req.Release.Revision,
		IsUpgrade: req.Release.IsUpgrade, IsInstall: !req.Release.IsUpgrade,
	}
	values, err := util.ToRenderValuesWithSchemaValidation(chart, config, options, caps, true)
	if err != nil {
		return nil, req.mismatch(err)
	}
	if req.SkipSchema {
		return values, nil
	}
	given, _ := values["Values"].(common.Values)
	violations, err := violationsOf(chart, given, nil)
	if err != nil {
		return nil, req.invalid("", err, "correct the schema, or have schemas not checked")
	}
	if len(violations) == 0 {
		return values, nil
	}
	if more := len(violations) - maxViolations; more > 0 {
		violations = append(violations[:maxViolations], fmt.Sprintf("and %d more", more))
	}
	return nil, req.invalid("", errors.New("the values do not fit its schema: "+strings.Join(violations, "; ")), "correct the values")
}

var notTable = regexp.MustCompile(`^type mismatch on ([^:]+): `)

// mismatch is the failure of values that cannot be merged with those of the chart. What
// Helm says of it quotes them.
func (req Request) mismatch(err error) error {
	if m := notTable.FindStringSubmatch(err.Error()); m != nil {
		err = fmt.Errorf("the values of the subchart %s are no table", m[1])
	} else {
		err = fmt.Errorf("its values: %w", err)
	}
	return req.invalid("", err, "correct the values")
}

// violationsOf lists what in values does not fit the schemas of a chart and of its
// subcharts, each with its path from the root.
func violationsOf(chart *chartv2.Chart, values map[string]any, above []string) ([]string, error) {
	var all []string
	if chart.Schema != nil {
		found, err := violationsOfSchema(chart.Schema, values, above)
		if err != nil {
			return nil, fmt.Errorf("%s/values.schema.json: %w", chart.ChartFullPath(), err)
		}
		all = found
	}
	for _, child := range chart.Dependencies() {
		raw := values[child.Name()]
		if raw == nil {
			continue
		}
		path := append(slices.Clone(above), child.Name())
		given, ok := raw.(map[string]any)
		if !ok {
			all = append(all, fmt.Sprintf("%s: got %T, want the values of a subchart", strings.Join(path, "."), raw))
			continue
		}
		found, err := violationsOf(child, given, path)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func violationsOfSchema(schema []byte, values map[string]any, above []string) ([]string, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(sealed{})
	if err := compiler.AddResource(schemaAt, doc); err != nil {
		return nil, errors.New(oneLine(err.Error()))
	}
	compiled, err := compiler.Compile(schemaAt)
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(oneLine(err.Error()), schemaAt, ""))
	}
	err = compiled.Validate(values)
	var invalid *jsonschema.ValidationError
	if err == nil {
		return nil, nil
	}
	if !errors.As(err, &invalid) {
		return nil, errors.New(oneLine(err.Error()))
	}
	var found []string
	leaves(invalid, func(e *jsonschema.ValidationError) {
		at := strings.Join(slices.Concat(above, e.InstanceLocation), ".")
		if at == "" {
			at = "the values"
		}
		found = append(found, at+": "+violation(e.ErrorKind))
	})
	slices.Sort(found)
	return slices.Compact(found), nil
}

// leaves calls f for each violation that has no closer cause.
func leaves(e *jsonschema.ValidationError, f func(*jsonschema.ValidationError)) {
	if len(e.Causes) == 0 {
		f(e)
	}
	for _, cause := range e.Causes {
		leaves(cause, f)
	}
}

// violation says what is wrong without the value, which may be a secret.
func violation(what jsonschema.ErrorKind) string {
	switch what := what.(type) {
	case *kind.Pattern:
		return fmt.Sprintf("does not match the pattern %q", what.Want)
	case *kind.Format:
		return "is not a valid " + what.Want
	case *kind.ContentEncoding:
		return "is not " + what.Want
	case *kind.ContentMediaType:
		return "is not of media type " + what.Want
	}
	return what.LocalizedString(message.NewPrinter(language.English))
}

// sealed loads nothing: a schema is whole, or it is refused. What has only a name, as a
// URN does, allows everything, as in Helm.
type sealed struct{}

// Load implements jsonschema.URLLoader.
func (sealed) Load(url string) (any, error) {
	if strings.HasPrefix(url, "urn:") {
		return true, nil
	}
	return nil, errors.New("schemas elsewhere are not read")
}
