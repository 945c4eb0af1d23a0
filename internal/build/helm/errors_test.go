package helm

import (
	"errors"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
)

const (
	parent = "-- c/Chart.yaml --\nname: c\nversion: 1.0.0\napiVersion: v2\n"
	sub    = "-- c/charts/s/Chart.yaml --\nname: s\nversion: 1.0.0\napiVersion: v2\n"
)

func TestRenderErrors(t *testing.T) {
	tests := []struct {
		name, reason, chart string
		change              func(*Request)
		want                string
	}{
		{"nil in a subchart", "the template and its line are named, and from where it was included",
			parent + sub + "-- c/charts/s/templates/_h.tpl --\n{{ define \"s.x\" }}\n\n{{ .Values.a.b.c }}{{ end }}\n-- c/charts/s/templates/x.yaml --\n\na: {{ include \"s.x\" . }}\n", nil,
			"render chart c 1.0.0, c/charts/s/templates/_h.tpl:3: {{ .Values.a.b.c }}: nil pointer evaluating interface {}.b, included from c/charts/s/templates/x.yaml:2; correct the values, or the template"},
		{"a function that does not exist", "templates are parsed first", parent + "-- c/templates/x.yaml --\n\n{{ nothing }}\n", nil,
			`render chart c 1.0.0, c/templates/x.yaml:2: function "nothing" not defined; correct the values, or the template`},
		{"fail", "the chart's own words", parent + "-- c/templates/x.yaml --\n{{ fail \"set\\nreplicas\" }}\n", nil,
			"render chart c 1.0.0, c/templates/x.yaml:1: set replicas; correct the values, or the template"},
		{"required", "the chart's own words, from a helper", parent + "-- c/templates/_h.tpl --\n{{ define \"h\" }}{{ required \"image is required\" .Values.image }}{{ end }}\n-- c/templates/x.yaml --\n{{ include \"h\" . }}\n", nil,
			"render chart c 1.0.0, c/templates/x.yaml:1: image is required; correct the values, or the template"},
		{"no such template", "its name is told", parent + "-- c/templates/x.yaml --\n{{ include \"h\" . }}\n", nil,
			`render chart c 1.0.0, c/templates/x.yaml:1: {{ include "h" . }}: error calling include: template: no template "h" associated with template "gotpl"; correct the values, or the template`},
		{"endless", "recursion ends", parent + "-- c/templates/x.yaml --\n{{ define \"h\" }}{{ include \"h\" . }}{{ end }}{{ include \"h\" . }}\n", nil,
			"unable to execute template"},
		{"no YAML", "the file is told, and the line of what it makes", parent + "-- c/templates/x.yaml --\na: b\nc: d: e\n", nil,
			"render chart c 1.0.0, c/templates/x.yaml: what the template makes is not YAML of objects: line 2: mapping values are not allowed in this context; correct the values, or the template"},
		{"no YAML, labelled", "the same where kustomize reads it", parent + "-- c/templates/x.yaml --\na: b\nc: d: e\n", withOrigin,
			"render chart c 1.0.0: post rendering: what c/templates/x.yaml makes: invalid YAML: mapping values are not allowed in this context; correct the post renderers, or the template"},
		{"no name, labelled", "kustomize wants one", parent + "-- c/templates/x.yaml --\napiVersion: v1\nkind: Pod\n", withOrigin,
			"post rendering: what c/templates/x.yaml makes: "},
		{"twice, labelled", "both files are named, and what to do", parent + sub + "-- c/templates/x.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n-- c/charts/s/templates/x.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", withOrigin,
			"Pod/p is in c/charts/s/templates/x.yaml and in c/templates/x.yaml: where one is a hook, set spec.postRenderStrategy to separate or nohooks"},
		{"kubeVersion", "the chart says what it wants", parent + "kubeVersion: \">=99\"\n", nil,
			"render chart c 1.0.0: it wants Kubernetes >=99 and the cluster is v1.36.3; upgrade the cluster, or use a version of the chart for it"},
		{"missing dependency", "half a chart is none", parent + "dependencies: [{name: s, version: 1.x}, {name: off, version: 1.x, condition: off}]\n-- c/values.yaml --\noff: false\n", nil,
			"render chart c 1.0.0: its archive lacks the charts that Chart.yaml depends on: s; package the chart with its dependencies"},
		{"release name", "Helm allows no other", parent, func(r *Request) { r.Release.Name = "Demo" },
			`render chart c 1.0.0: the release name "Demo": invalid release name`},
		{"subchart's values", "they are a table", parent + sub, func(r *Request) { r.Values = Of(map[string]any{"s": "x"}) },
			"render chart c 1.0.0: the values of the subchart s are no table; correct the values"},
		{"schema", "every violation is listed, those of subcharts too, without the values",
			parent + "-- c/values.schema.json --\n{\"required\": [\"image\"], \"properties\": {\"n\": {\"type\": \"integer\"}, \"p\": {\"pattern\": \"^x\"}, \"f\": {\"type\": \"string\", \"maxLength\": 1}}}\n" +
				sub + "-- c/charts/s/values.schema.json --\n{\"properties\": {\"list\": {\"items\": {\"enum\": [\"a\", \"b\"]}}}, \"additionalProperties\": false}\n",
			func(r *Request) {
				r.Values = Of(map[string]any{"n": "one", "p": "hunter2", "f": "hunter2", "s": map[string]any{"list": []any{"a", "hunter2"}, "other": true, "global": nil}})
			},
			"render chart c 1.0.0: the values do not fit its schema: f: maxLength: got 7, want 1; n: got string, want integer; p: does not match the pattern \"^x\"; the values: missing property 'image'; "},
		{"schema elsewhere", "nothing is fetched", parent + "-- c/values.schema.json --\n{\"$ref\": \"https://example.com/schema.json\"}\n", nil,
			"c/values.schema.json: "},
		{"schema of the machine", "no file is read", parent + "-- c/values.schema.json --\n{\"$ref\": \"file:///etc/passwd\"}\n", nil,
			"schemas elsewhere are not read"},
		{"no schema", "it is not JSON", parent + "-- c/values.schema.json --\n{\n", nil, "c/values.schema.json: it is not JSON"},
		{"definition", "the file is named", parent + "-- c/crds/x.yaml --\nkind: CustomResourceDefinition\n", nil, "c/crds/x.yaml: an object has no apiVersion"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := request(t, tt.chart)
			if tt.change != nil {
				tt.change(&req)
			}
			_, err := Render(t.Context(), req)
			if err == nil || !strings.Contains(err.Error(), tt.want) || failure.KindOf(err) != failure.Invalid {
				t.Fatalf("%s: %v, want %q", tt.reason, err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: one line, without values", err)
			}
		})
	}
}

func withOrigin(r *Request) { r.PostRender.Origin.Name = "hr" }

func TestSchemaCanBeLeftOut(t *testing.T) {
	req := request(t, parent+"-- c/values.schema.json --\n{\"required\": [\"image\"]}\n")
	if _, err := Render(t.Context(), req); err == nil {
		t.Error("the values lack what the schema requires")
	}
	req.SkipSchema = true
	if _, err := Render(t.Context(), req); err != nil {
		t.Error(err)
	}
}

func TestSchemaByNameAllowsAll(t *testing.T) {
	req := request(t, parent+"-- c/values.schema.json --\n{\"properties\": {\"a\": {\"$ref\": \"urn:example:a\"}}}\n")
	req.Values = Of(map[string]any{"a": "x"})
	if _, err := Render(t.Context(), req); err != nil {
		t.Errorf("%v: Helm ignores what has only a name", err)
	}
}

func TestObjectsErrors(t *testing.T) {
	const pod = "---\n# Source: c/templates/a.yaml\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
	tests := []struct{ name, reason, manifest, want string }{
		{"twice", "both files are named", pod + strings.Replace(pod, "a.yaml", "b.yaml", 1),
			"read the manifest of c/templates/b.yaml: Pod/p is there twice: it is in c/templates/a.yaml as well; correct the template"},
		{"twice in one", "the file is named", pod + pod, "read the manifest of c/templates/a.yaml: Pod/p is there twice; correct the template"},
		{"no kind", "it is no object", "# Source: c/x.yaml\na: b\n", "read the manifest of c/x.yaml: an object has no apiVersion; correct the template"},
		{"text", "it is no object", "text\n", "read the manifest of the manifest: it holds something that is no object; correct the template"},
		{"no YAML", "it is told", "a: b: c\n", "mapping values are not allowed"},
		{"list of text", "items are objects", "apiVersion: v1\nkind: List\nitems: [a]\n", "an item of its List is no object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := Objects(tt.manifest)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, failure.Of(failure.Invalid)) {
				t.Errorf("%s: %v, %v, want %q", tt.reason, objects, err, tt.want)
			}
		})
	}
}

func TestObjects(t *testing.T) {
	objects, err := Objects(`---
# Source: c/templates/a.yaml
# a comment
---
# Source: c/templates/a.yaml
apiVersion: v1
kind: ConfigMapList
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}
---
{}
---
apiVersion: example.com/v1
kind: Thing
metadata: {name: c}
spec: {whole: 12345678901234, part: 1.5, yes: yes}
`)
	if err != nil || len(objects) != 3 {
		t.Fatalf("%v, %v", objects, err)
	}
	spec, _ := objects[2].Object["spec"].(map[string]any)
	if spec["whole"] != int64(12345678901234) || spec["part"] != 1.5 || spec["true"] != true {
		t.Errorf("spec %#v, want the values that Kubernetes reads", spec)
	}
}
