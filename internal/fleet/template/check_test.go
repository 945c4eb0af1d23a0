package template

import (
	"errors"
	"strings"
	"testing"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

func TestCheckTemplate(t *testing.T) {
	t.Parallel()
	if err := NewCompiler().CheckTemplate(t.Context(), newTemplate(t, schemaText, objectsText)); err != nil {
		t.Fatal(err)
	}
	plain := "- template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"
	data := func(text string) string {
		return "- template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {a: \"" + text + "\"}}"
	}
	for _, row := range []struct {
		name, reason, schema, objects string
		want                          []string
	}{
		{"schema of another type", "parameters have names", "{type: array, items: {type: string}}", plain, []string{"spec.parameters.type: has to be object"}},
		{"schema that is none", "it is a map", "[a]", plain, []string{"spec.parameters: has to be a schema: a map"}},
		{"misspelt word", "it would do nothing", "{type: object, propertys: {}}", plain, []string{"spec.parameters.propertys: is no word of a schema"}},
		{"misspelt word below", "it would do nothing", "{type: object, properties: {a: {type: array, items: {typ: string}}, b: {type: object, additionalProperties: {x: 1}}, c: {type: string, anyOf: [{min: 3}]}}}", plain,
			[]string{"spec.parameters.properties[a].items.typ: is no word", "spec.parameters.properties[b].additionalProperties.x: is no word", "spec.parameters.properties[c].anyOf[0].min: is no word"}},
		{"word with a value of another type", "it cannot be read", "{type: object, properties: {a: {type: string, maxLength: many}}}", plain, []string{"spec.parameters: is no OpenAPI v3 schema"}},
		{"properties that are a list", "they have names", "{type: object, properties: [a]}", plain, []string{"spec.parameters.properties: has to be a map of schemas"}},
		{"no type", "it is not structural", "{type: object, properties: {a: {}}}", plain, []string{"spec.parameters.properties[a].type: Required value: must not be empty"}},
		{"unknown type", "there are six", "{type: object, properties: {a: {type: text}}}", plain, []string{`spec.parameters.properties[a].type: "text" is none of array, boolean`}},
		{"reference", "is not structural", "{type: object, properties: {a: {$ref: '#/x'}}}", plain, []string{"spec.parameters: is not structural"}},
		{"default of another type", "it would be refused in every cluster", "{type: object, properties: {a: {type: integer, default: many}}}", plain, []string{"spec.parameters.properties[a].default: Invalid value"}},
		{"pattern", "it does not compile", "{type: object, properties: {a: {type: string, pattern: '('}}}", plain, []string{"spec.parameters.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression"}},
		{"rule", "it does not compile", "{type: object, properties: {a: {type: integer}}, x-kubernetes-validations: [{rule: self.b > 1}]}", plain, []string{"spec.parameters.x-kubernetes-validations[0].rule: compilation failed"}},
		{"rule over the past", "there is none", "{type: object, properties: {a: {type: integer}}, x-kubernetes-validations: [{rule: self.a > oldSelf.a}]}", plain, []string{"spec.parameters.x-kubernetes-validations[0].rule: uses oldSelf"}},
		{"no objects", "it would give none", schemaText, "[]", []string{"spec.objects: is empty"}},
		{"no object", "a string is none", schemaText, "- template: text", []string{"spec.objects[0].template: has to be an object"}},
		{"no kind and no name", "it cannot be made", schemaText, "- template: {apiVersion: v1, kind: 5, metadata: {generateName: a-}}", []string{"spec.objects[0].template.kind: is missing", "spec.objects[0].template.metadata.name: is missing"}},
		{"expression", "it does not compile", schemaText, data("${cluster.}"), []string{"spec.objects[0].template.data.a: ${cluster.} does not compile"}},
		{"unknown variable", "there are two", schemaText, data("${values.region}"), []string{"undeclared reference to 'values' (in container ''); the variables are cluster, parameters"}},
		{"item without forEach", "there is none", schemaText, data("${item.name}"), []string{"undeclared reference to 'item'"}},
		{"forEach over item", "it is what it runs through", schemaText, "- {forEach: item.x, template: {apiVersion: v1, kind: ConfigMap, metadata: {name: \"${item}\"}}}", []string{"spec.objects[0].forEach: ${item.x} does not compile"}},
		{"when in braces", "it is an expression already", schemaText, "- {when: \"${parameters.private}\", template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}}", []string{"spec.objects[0].when: is an expression already; write it without ${ }"}},
		{"unknown parameter", "a misspelt one", schemaText, data("${parameters.Region}"), []string{"spec.objects[0].template.data.a: ${parameters.Region}: there is no parameter Region: there are extra, nodeGroups, private, region, tags, version"}},
		{"unknown parameter by the cluster", "they are the same", schemaText, data("${cluster.parameters.?x.orValue('')}"), []string{"there is no parameter x"}},
		{"unknown parameter of an item", "forEach says what it is", schemaText, "- {forEach: parameters.nodeGroups, when: item.size > 1, template: {apiVersion: v1, kind: ConfigMap, metadata: {name: \"${item.nam}\"}}}",
			[]string{"spec.objects[0].when: ${item.size > 1}: there is no parameter nodeGroups[].size: there are max, min, name, zones", "spec.objects[0].template.metadata.name: ${item.nam}: there is no parameter nodeGroups[].nam"}},
		{"unknown parameter in a loop", "its variable is an element", schemaText, data("${parameters.nodeGroups.map(g, g.nam)[0]}"), []string{"there is no parameter nodeGroups[].nam"}},
		{"field of a string", "it has none", schemaText, data("${parameters.region.name}"), []string{"there is no parameter region.name: the schema gives this one no fields"}},
		{"parameters without a schema", "there are none", "", data("${parameters.region}"), []string{"there is no parameter region: the schema gives this one no fields"}},
		{"unknown field of the cluster", "there are five", schemaText, data("${cluster.region}"), []string{"there is no cluster.region: cluster has annotations, labels, name, namespace, parameters"}},
		{"wrong schema and expression", "both are told, and not what follows from the first", "{type: array}", data("${parameters.x}${y}"), []string{"spec.parameters.type: has to be object", "undeclared reference to 'y'"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, tmpl := NewCompiler(), newTemplate(t, row.schema, row.objects)
			err := c.CheckTemplate(t.Context(), tmpl)
			if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.HasPrefix(err.Error(), "check ClusterTemplate/fleet/small: ") {
				t.Fatalf("got %v: %s", err, row.reason)
			}
			got := problemsOf(t, err)
			if len(got) != len(row.want) {
				t.Fatalf("got %q, want %q: %s", got, row.want, row.reason)
			}
			for i, want := range row.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("got %q, want %q: %s", got[i], want, row.reason)
				}
			}
			// A cluster says the same, and that the template is to be corrected.
			_, rendered := c.Render(t.Context(), tmpl, newCluster(t, "region: here"))
			if ReasonOf(rendered) != fleetv1.RenderFailedReason || !strings.HasSuffix(rendered.Error(), "; correct ClusterTemplate/fleet/small") {
				t.Errorf("Render says %v", rendered)
			}
		})
	}
}

// What the schema leaves open is not refused.
func TestCheckLeavesOpen(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, reason, text string }{
		{"any fields", "the schema says so", "${parameters.extra.a.b.c}"},
		{"names of values", "the schema says so", "${parameters.tags.anything}"},
		{"key that is a value", "it is not known before", "${parameters.tags[cluster.name]}"},
		{"labels", "people give them", "${cluster.labels.anything}"},
		{"variable of a loop over what was made", "nothing is known of it", "${[{'a': 'b'}].map(p, p.a)[0]}"},
	} {
		tmpl := newTemplate(t, schemaText, "- template: {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {a: \""+row.text+"\"}}")
		if err := NewCompiler().CheckTemplate(t.Context(), tmpl); err != nil {
			t.Errorf("%s: %v: %s", row.name, err, row.reason)
		}
	}
}

// A template is compiled once, whatever it is called, and again when it changes.
func TestTemplatesAreRemembered(t *testing.T) {
	t.Parallel()
	c, tmpl := NewCompiler(), newTemplate(t, schemaText, objectsText)
	first, err := c.compiled(t.Context(), tmpl)
	if err != nil {
		t.Fatal(err)
	}
	other := tmpl.DeepCopy()
	other.Name = "other"
	if again, err := c.compiled(t.Context(), other); err != nil || again != first {
		t.Errorf("compiled again: %v", err)
	}
	other.Spec.Objects = other.Spec.Objects[:1]
	if again, err := c.compiled(t.Context(), other); err != nil || again == first {
		t.Errorf("not compiled again: %v", err)
	}
}
