package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// schemaText is that of most tests here.
const schemaText = `
type: object
required: [region]
properties:
  region: {type: string, enum: [here, there]}
  version: {type: string, default: v1.36.3, pattern: '^v\d+\.\d+\.\d+$'}
  private: {type: boolean, default: false}
  tags: {type: object, additionalProperties: {type: string}}
  extra: {type: object, x-kubernetes-preserve-unknown-fields: true}
  nodeGroups:
    type: array
    default: [{name: default, min: 1, max: 3}]
    maxItems: 5
    x-kubernetes-list-type: map
    x-kubernetes-list-map-keys: [name]
    items:
      type: object
      required: [name]
      x-kubernetes-validations:
      - {rule: self.min <= self.max, message: min has to be at most max}
      properties:
        name: {type: string, maxLength: 10}
        min: {type: integer, minimum: 0, default: 1}
        max: {type: integer, default: 3}
        zones: {type: array, items: {type: string}}
`

// newTemplate makes a ClusterTemplate from the YAML of a schema and of its objects.
func newTemplate(t testing.TB, schema, objects string) *fleetv1.ClusterTemplate {
	t.Helper()
	out := &fleetv1.ClusterTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "small"}}
	if schema != "" {
		out.Spec.Parameters = rawJSON(t, schema)
	}
	if err := yaml.UnmarshalStrict([]byte(objects), &out.Spec.Objects); err != nil {
		t.Fatal(err)
	}
	return out
}

func rawJSON(t testing.TB, text string) *apiextensionsv1.JSON {
	t.Helper()
	out, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &apiextensionsv1.JSON{Raw: out}
}

// newCluster makes a FleetCluster from the YAML of its parameters.
func newCluster(t testing.TB, parameters string) *fleetv1.FleetCluster {
	t.Helper()
	c := &fleetv1.FleetCluster{ObjectMeta: metav1.ObjectMeta{
		Namespace: "fleet", Name: "blue", Labels: map[string]string{"environment": "prod"}, Annotations: map[string]string{"example.com/owner": "a-team"},
	}}
	c.Spec.Template = &fleetv1.TemplateReference{Name: "small"}
	if parameters != "" {
		c.Spec.Template.Parameters = rawJSON(t, parameters)
	}
	return c
}

// asYAML prints objects as a file of documents.
func asYAML(t testing.TB, objects []*unstructured.Unstructured) string {
	t.Helper()
	var b strings.Builder
	for _, u := range objects {
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("---\n" + string(text))
	}
	return b.String()
}

// golden compares with a file of testdata. BOWLINE_UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("BOWLINE_UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not what %s holds; BOWLINE_UPDATE_GOLDEN=1 writes it anew. Got:\n%s", file, got)
	}
}

// objectsText is that of the tests whose result is a golden file.
const objectsText = `
- template:
    apiVersion: example.com/v1
    kind: Cluster
    metadata:
      name: ${cluster.name}
      labels: {environment: "${cluster.labels.environment}", zone: "${cluster.labels.?zone}"}
      annotations: {owner: "owned by ${cluster.annotations['example.com/owner']} in ${cluster.namespace}"}
    spec:
      region: ${parameters.region}
      version: ${parameters.version}
      private: ${parameters.private}
      tags: ${parameters.?tags}
      names: ${parameters.nodeGroups.map(g, g.name)}
      groups: "${size(parameters.nodeGroups)} in ${cluster.parameters.region}"
      literal: $${parameters.region}
- when: parameters.private
  template:
    apiVersion: v1
    kind: ConfigMap
    metadata: {name: private, namespace: "${cluster.namespace}"}
- forEach: parameters.nodeGroups
  when: item.max > 0
  template:
    apiVersion: example.com/v1
    kind: NodeGroup
    metadata: {name: "${cluster.name}-${item.name}"}
    spec:
      index: ${index}
      min: ${item.min}
      max: ${item.max}
      zones: ${item.?zones}
`

func TestRender(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	tmpl := newTemplate(t, schemaText, objectsText)
	for _, row := range []struct{ name, reason, parameters string }{
		{"least", "all but the region has a default", "region: here"},
		{"most", "everything is given", `
region: there
version: v1.35.0
private: true
tags: {a: "${cluster.name}"}
nodeGroups: [{name: a, min: 0, max: 9, zones: [p, q]}, {name: none, min: 0, max: 0}, {name: b}]`},
		{"nulls", "as in the API, a null that is not allowed is as good as nothing", "{region: here, version: null, tags: null}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			objects, err := c.Render(t.Context(), tmpl, newCluster(t, row.parameters))
			if err != nil {
				t.Fatalf("%s: %v", row.reason, err)
			}
			golden(t, "render-"+row.name+".yaml", asYAML(t, objects))
		})
	}
}

func TestInvalidParameters(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	tmpl := newTemplate(t, schemaText, objectsText)
	for _, row := range []struct {
		name, reason, parameters string
		want                     []string
	}{
		{"missing", "it has no default", "", []string{"spec.template.parameters.region: is required"}},
		{"out of enum", "there are two", "region: nowhere", []string{`spec.template.parameters.region: Unsupported value: "nowhere": supported values: "here", "there"`}},
		{"wrong type", "a number is no string", "region: 5", []string{`spec.template.parameters.region: Unsupported value: 5: supported values: "here", "there"`, `spec.template.parameters.region: must be of type string: "integer"`}},
		{"wrong type below", "with the place in the list", "{region: here, nodeGroups: [{name: a}, {name: b, min: two}]}", []string{`spec.template.parameters.nodeGroups[1].min: must be of type integer: "string"`}},
		{"unknown", "a misspelt one", "{region: here, nodegroups: []}", []string{"spec.template.parameters.nodegroups: the template has no such parameter"}},
		{"unknown below", "a misspelt one", "{region: here, nodeGroups: [{name: a, size: 3}]}", []string{"spec.template.parameters.nodeGroups[0].size: the template has no such parameter"}},
		{"pattern", "no version", "{region: here, version: latest}", []string{`spec.template.parameters.version: should match '^v\d+\.\d+\.\d+$'`}},
		{"rule", "one field depends on another", "{region: here, nodeGroups: [{name: a, min: 5}]}", []string{"spec.template.parameters.nodeGroups[0]: min has to be at most max"}},
		{"twice", "names are keys", "{region: here, nodeGroups: [{name: a}, {name: a}]}", []string{`spec.template.parameters.nodeGroups[1]: Duplicate value: {"name":"a"}`}},
		{"no map", "it holds names and values", "[a]", []string{"spec.template.parameters: have to be a map of names and values"}},
		{"all of them", "who corrects one wants to know of the next", "{other: 1, private: yes please, nodeGroups: [{}, {name: much-too-long, max: many}]}", []string{
			"spec.template.parameters.nodeGroups[0].name: is required",
			`spec.template.parameters.nodeGroups[1].max: must be of type integer: "string"`,
			"spec.template.parameters.nodeGroups[1].name: Too long: may not be more than 10 bytes",
			"spec.template.parameters.other: the template has no such parameter",
			`spec.template.parameters.private: must be of type boolean: "string"`,
			"spec.template.parameters.region: is required",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cluster := newCluster(t, row.parameters)
			_, err := c.Render(t.Context(), tmpl, cluster)
			if ReasonOf(err) != fleetv1.InvalidParametersReason || !errors.Is(err, failure.Of(failure.Invalid)) {
				t.Fatalf("got %v: %s", err, row.reason)
			}
			if got := problemsOf(t, err); strings.Join(got, "\n") != strings.Join(row.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s\n%s", strings.Join(got, "\n"), strings.Join(row.want, "\n"), row.reason)
			}
			if _, again := c.Parameters(t.Context(), tmpl, cluster); again == nil || again.Error() != err.Error() {
				t.Errorf("Parameters says %v and Render %v", again, err)
			}
		})
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, "region: here")
	got, err := NewCompiler().Parameters(t.Context(), newTemplate(t, schemaText, objectsText), cluster)
	if err != nil {
		t.Fatal(err)
	}
	want := "map[nodeGroups:[map[max:3 min:1 name:default]] private:false region:here version:v1.36.3]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if given := string(cluster.Spec.Template.Parameters.Raw); given != `{"region":"here"}` {
		t.Errorf("the FleetCluster now says %s", given)
	}
	// Without parameters of their own clusters can be selected all the same.
	vars := ClusterVariables(&fleetv1.FleetCluster{}, nil)
	if zone, err := NewCompiler().ExpandString(t.Context(), "", "${cluster.labels.?zone.orValue('none')}${parameters.?a.orValue('')}", vars); err != nil || zone != "none" {
		t.Errorf("got %q, %v", zone, err)
	}
}

// broken is one object, with something that goes wrong.
func broken(fields string) string {
	return "- template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- " + fields + "\n"
}

func TestRenderFails(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	object := func(metadata string) string {
		return broken("template: {apiVersion: v1, kind: ConfigMap, metadata: " + metadata + "}")
	}
	for _, row := range []struct{ name, reason, objects, parameters, want string }{
		{"field", "it is not always there", object(`{name: b, labels: {a: "${parameters.extra.missing}"}}`), "extra: {}",
			"spec.objects[1].template.metadata.labels.a: ${parameters.extra.missing} has no answer: no such key: missing"},
		{"item", "which one is told", broken("forEach: parameters.nodeGroups\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: \"${item.name}\"}, data: \"${item.zones}\"}"),
			"nodeGroups: [{name: p, zones: []}, {name: q}]", "spec.objects[1].template.data: ${item.zones} has no answer: no such key: zones; write a.?b.orValue('…') where a field can be missing (at item 1 of forEach)"},
		{"forEach over no list", "what should be repeated", broken("forEach: parameters.region\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"), "",
			"spec.objects[1].forEach: ${parameters.region} gives a string and not a list"},
		{"forEach over nothing", "what should be repeated", broken("forEach: parameters.?extra\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"), "",
			"spec.objects[1].forEach: ${parameters.?extra} gives no value; say what else with .orValue([])"},
		{"when without a boolean", "should it be there or not", broken("when: parameters.region\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"), "",
			"spec.objects[1].when: ${parameters.region} gives a string and not true or false"},
		{"when without a value", "should it be there or not", broken("when: parameters.?extra\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"), "",
			"spec.objects[1].when: ${parameters.?extra} gives no value"},
		{"other namespace", "that would be another fleet", object("{name: b, namespace: kube-system}"), "",
			"spec.objects[1].template.metadata.namespace: is kube-system, and the objects of a cluster live in the namespace of its FleetCluster, fleet; leave it out"},
		{"other namespace by expression", "that would be another fleet", object(`{name: b, namespace: "x-${cluster.name}"}`), "",
			"spec.objects[1].template.metadata.namespace: is x-blue"},
		{"namespace that is no string", "it would be dropped without a word", object(`{name: b, namespace: "${parameters.nodeGroups}"}`), "",
			"spec.objects[1].template.metadata.namespace: is [map"},
		{"duplicate", "one would replace the other", object("{name: a}"), "", "spec.objects[1].template.metadata.name: ConfigMap/fleet/a is made by spec.objects[0].template already; give one of them another name"},
		{"duplicate items", "one would replace the other", broken("forEach: \"[1, 2]\"\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"), "",
			"ConfigMap/fleet/b is made by spec.objects[1].template (at item 0 of forEach) already; give one of them another name (at item 1 of forEach)"},
		{"empty name", "no object is without", object(`{name: "${''}"}`), "", "spec.objects[1].template.metadata.name: is empty"},
		{"name that is a number", "it has to be a string", object(`{name: "${1}"}`), "", "spec.objects[1].template.metadata.name: is a whole number and not a string"},
		{"no name", "its expression gave nothing", object(`{name: "${cluster.labels.?name}"}`), "", "spec.objects[1].template.metadata.name: is null and not a string"},
		{"list", "its items could live anywhere", broken("template: {apiVersion: v1, kind: List, metadata: {name: b}, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: kube-system}}]}"), "",
			"spec.objects[1].template: is a list of objects; make an entry for each"},
		{"too many", "a list is longer than anybody meant", broken("forEach: \"[0,1,2,3,4,5,6,7,8,9].map(a, [0,1,2,3,4,5,6,7,8,9].map(b, [0,1,2,3,4,5,6,7,8,9,10].map(c, string(a) + string(b) + string(c)))).map(l, l.map(m, m.join(' ')).join(' ')).join(' ').split(' ')\"\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: \"b-${index}\"}}"), "",
			"spec.objects[1]: there would be more than 1000 objects"},
		{"too many problems", "the first hundred will do", broken("forEach: \"[0,1,2,3,4,5,6,7,8,9].map(a, [0,1,2,3,4,5,6,7,8,9].map(b, string(a) + string(b)).join(' ')).join(' ').split(' ') + ['a', 'b']\"\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"), "",
			"and 90 more"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			tmpl := newTemplate(t, strings.Replace(schemaText, "required: [region]", "", 1), row.objects)
			cluster := newCluster(t, "region: here\n"+row.parameters)
			objects, err := c.Render(t.Context(), tmpl, cluster)
			if err == nil {
				t.Fatalf("got %s: %s", asYAML(t, objects), row.reason)
			}
			if ReasonOf(err) != fleetv1.RenderFailedReason || !errors.Is(err, failure.Of(failure.Invalid)) || !failure.Terminal(err) {
				t.Errorf("is %s, %v: %s", ReasonOf(err), failure.KindOf(err), row.reason)
			}
			if got := err.Error(); !strings.Contains(got, row.want) || !strings.HasPrefix(got, "render FleetCluster/fleet/blue: ") {
				t.Errorf("got %q; want %q: %s", got, row.want, row.reason)
			}
		})
	}
}

// Each of the copies is small.
func TestRenderBytes(t *testing.T) {
	t.Parallel()
	tmpl := newTemplate(t, "", broken("forEach: \"'"+strings.Repeat("a ", 99)+"a'.split(' ')\"\n  template: {apiVersion: v1, kind: ConfigMap, metadata: {name: \"b-${index}\"}, data: {a: "+strings.Repeat("x", 50_000)+"}}"))
	_, err := NewCompiler().Render(t.Context(), tmpl, newCluster(t, ""))
	if err == nil || !strings.Contains(err.Error(), "spec.objects[1].template: what is made up to here is larger than 4194304 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestNothingRendered(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, reason, objects string }{
		{"when", "its condition is false", "- {when: \"false\", template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}}"},
		{"forEach", "its list is empty", "- {forEach: \"[]\", template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}}"},
	} {
		_, err := NewCompiler().Render(t.Context(), newTemplate(t, "", row.objects), newCluster(t, ""))
		var f *RenderError
		if !errors.As(err, &f) || f.Reason != fleetv1.NothingRenderedReason || ReasonOf(err) != f.Reason || len(f.FieldErrors) != 1 {
			t.Errorf("%s: got %v: %s", row.name, err, row.reason)
		}
	}
}

func TestRenderWithoutTemplate(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, "")
	cluster.Spec.Template = nil
	_, err := NewCompiler().Render(t.Context(), newTemplate(t, "", broken("template: {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}")), cluster)
	if err == nil || !strings.Contains(err.Error(), "spec.template: is missing") {
		t.Errorf("got %v", err)
	}
}

func TestRenderCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewCompiler().Render(ctx, newTemplate(t, schemaText, objectsText), newCluster(t, "region: here"))
	if !errors.Is(err, failure.Of(failure.Timeout)) || failure.Terminal(err) || ReasonOf(err) != fleetv1.RenderFailedReason {
		t.Errorf("got %v: it may be tried again", err)
	}
}

// Two clusters of one template share nothing.
func TestRenderedObjectsAreOwn(t *testing.T) {
	t.Parallel()
	c, tmpl := NewCompiler(), newTemplate(t, schemaText, objectsText)
	first, err := c.Render(t.Context(), tmpl, newCluster(t, "region: here"))
	if err != nil {
		t.Fatal(err)
	}
	before := asYAML(t, first)
	for _, u := range first {
		u.SetLabels(map[string]string{"changed": "yes"})
		u.Object["spec"].(map[string]any)["changed"] = true
	}
	second, err := c.Render(t.Context(), tmpl, newCluster(t, "region: here"))
	if err != nil {
		t.Fatal(err)
	}
	if asYAML(t, second) != before {
		t.Errorf("the second one is\n%s", asYAML(t, second))
	}
}
