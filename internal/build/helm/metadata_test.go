package helm

import (
	"maps"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"k8s.io/apimachinery/pkg/types"
)

// lines are fields of an object, each with something that YAML libraries write in more
// than one way.
var lines = []string{
	`a: "yes"`, `a: 'no'`, `a: "1"`, `a: "0x10"`, `a: "1e3"`, `a: "12:30:45"`, `a: "012"`, `a: "0o7"`, `a: "1_000"`, `a: "+1"`, `a: "-"`,
	`a: ".5"`, `a: "."`, `a: "5."`, `a: ".inf"`, `a: "NaN"`, `a: "=" `, `a: "<<"`, `a: "y"`, `a: "N"`, `a: "Off"`, `a: "nULL"`,
	"a: |\n    one\n    two\n", "a: |-\n    one\n    two", "a: |+\n    one\n\n\n", "a: >-\n    folded\n    text", "a: |2\n     lead\n    two\n",
	`a: "a very long text on one line that goes on and on and on beyond the eighty columns where emitters like to fold"`,
	`a: "a very long text: on one line that goes on and on and on beyond the eighty columns where emitters like to fold, #truly"`,
	"a: |\n    a very long text on one line that goes on and on and on beyond the eighty columns where emitters like to fold\n    two\n",
	`a: "trailing \n and tabs\t\n"`, `a: "tab\there"`, `a: "\u00e9\u2028 \x07 bell"`, `a: "\U0001F600"`, `a: ""`, `a: " lead"`, `a: "trail "`, `a: "\n"`, `a: "\n\n"`, `a: "a\n\nb\n\n\n"`,
	`a: "null"`, `a: "~"`, `a: "- x"`, `a: "-x"`, `a: "# none"`, `a: "a: b"`, `a: "a:b"`, `a: "a #b"`, `a: "2001-01-01"`, `a: "2001-01-01T00:00:00Z"`, `a: "{{ x }}"`, `a: "*x"`, `a: "&x"`, `a: "!x"`, `a: "%x"`, `a: "@x"`, "a: \"`x\"", `a: "it's"`, `a: 'say "it"'`, `a: "[x]"`, `a: "? x"`, `a: "?"`, `a: ":"`, `a: ","`,
	`a: 3`, `a: -0`, `a: 1.5`, `a: 0.1`, `a: -2.75`, `a: 12345678901234`, `a: 9223372036854775807`, `a: 9223372036854775808`, `a: 1e6`, `a: 1.5e10`, `a: 1.0`, `a: 0.00001`, `a: 0.0001`, `a: 123456789.125`, `a: 0x1F`, `a: 0o17`, `a: 017`, `a: 1_000`, `a: .inf`,
	`a: true`, `a: True`, `a: no`, `a: on`, `a: null`, `a: ~`, `a:`, `a: {}`, `a: []`, `a: [[1, 2], [{a: b, c: [d]}]]`, "a:\n    - - a\n      - b\n    - c: d\n      e:\n        - f\n    - []\n    - {}\n    - null",
	`a: 2001-01-01`, `a: 12:30`, `a: !!str 1`, `a: !!int "1"`, `a: &x 1`, `1: a`, `true: a`, `y: a`, `"y": a`, `"1": a`, `"10": {"9": a, "b10": 1, "b9": 2, "B1": 3, "b-1": 4}`, `"a b": c`, `"": x`, "a: 1\n  a: 2",
	`a: one two`, `a: one # a comment`, `? a`, "a:\n    # comment\n    b: 1",
}

// TestSetIsWhatKustomizeDoes compares the way of ours with that through kustomize, which
// is the toolkit's.
func TestSetIsWhatKustomizeDoes(t *testing.T) {
	p := PostRender{
		CommonMetadata: &helmv2.CommonMetadata{Labels: map[string]string{"team": "1"}, Annotations: map[string]string{"note": "a: b"}},
		Origin:         types.NamespacedName{Namespace: "ns", Name: "hr"},
	}
	const head = "apiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: x\n"
	docs := map[string]string{
		"labels":            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: n\n  labels: {z: \"1\", a: 'yes', \"9\": x, \"10\": y, team: other}\n  annotations: {a: b}\n",
		"labels no strings": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  labels: {z: 1}\n",
		"empty metadata":    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  labels: {}\n  annotations: null\n",
		"two":               head + "---\n# only a comment\n---\n" + "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: y}\n---\n",
		"separator comment": "# one\n" + head + "--- # two\napiVersion: v1\nkind: Namespace\nmetadata: {name: y}\n",
		"a list":            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: y}}\n",
		"crlf":              "apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: y\r\n",
		"local":             "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: y\n  annotations: {config.kubernetes.io/local-config: \"true\"}\n",
	}
	for _, line := range lines {
		docs[line] = head + "spec:\n  " + line + "\n"
	}
	quick := 0
	for name, doc := range docs {
		files := map[string]string{"chart/templates/x.yaml": doc, "chart/templates/_y.yaml": "x: y"}
		only, ok := p.metadataOnly()
		if !ok {
			t.Fatal("there is more than metadata to set")
		}
		got, ok := only.set(maps.Clone(files))
		if !ok {
			continue
		}
		quick++
		want, err := p.through(t.Context(), files, "")
		if err != nil {
			t.Errorf("%s: kustomize refuses it: %v", name, err)
			continue
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", name, got, want)
		}
	}
	if quick < len(docs)/2 {
		t.Errorf("only %d of %d documents go the short way: the comparison says little", quick, len(docs))
	}
	t.Log(quick, len(docs))
}
