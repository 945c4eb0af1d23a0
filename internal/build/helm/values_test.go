package helm

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// objects is a client.Reader of a table: kind/namespace/name to data.
type objects struct {
	client.Reader
	data  map[string]map[string]string
	reads int
}

func (o *objects) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	o.reads++
	kind := "ConfigMap"
	if _, ok := into.(*corev1.Secret); ok {
		kind = "Secret"
	}
	data, found := o.data[kind+"/"+key.Namespace+"/"+key.Name]
	if key.Name == "down" {
		return errDown
	}
	if key.Name == "forbidden" {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("not yours"))
	}
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{Resource: strings.ToLower(kind) + "s"}, key.Name)
	}
	switch into := into.(type) {
	case *corev1.Secret:
		into.Data = map[string][]byte{}
		for k, v := range data {
			into.Data[k] = []byte(v)
		}
	case *corev1.ConfigMap:
		into.Data = data
	}
	return nil
}

func values(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func configMap(name string) meta.ValuesReference {
	return meta.ValuesReference{Kind: "ConfigMap", Name: name}
}

func at(ref meta.ValuesReference, key, path string) meta.ValuesReference {
	ref.ValuesKey, ref.TargetPath = key, path
	return ref
}

func literal(ref meta.ValuesReference) meta.ValuesReference {
	ref.Literal = true
	return ref
}

func optional(ref meta.ValuesReference) meta.ValuesReference {
	ref.Optional = true
	return ref
}

func TestReadValues(t *testing.T) {
	cluster := &objects{data: map[string]map[string]string{
		"ConfigMap/n/one": {"values.yaml": "a: {b: 1, c: x}\nlist: [1, 2]\n", "other": "a: {b: 3}"},
		"ConfigMap/n/two": {"values.yaml": "a: {b: 2}\nlist: [3]\n", "text": "x,y={z}[0]", "number": "5", "quoted": `"5"`, "list": "{a,b}", "null": "null", "empty": ""},
		"Secret/n/creds":  {"values.yaml": "password: hunter2\n", "token": "hunter3"},
	}}
	two := configMap("two")
	secret := meta.ValuesReference{Kind: "Secret", Name: "creds"}
	tests := []struct {
		name, reason, inline string
		refs                 []meta.ValuesReference
		want                 string
	}{
		{"nothing", "", "", nil, "{}"},
		{"inline", "", "a: 1", nil, "a: 1"},
		{"reference", "its key is values.yaml where it names none", "", []meta.ValuesReference{configMap("one")}, "{a: {b: 1, c: x}, list: [1, 2]}"},
		{"key", "it names another", "", []meta.ValuesReference{at(configMap("one"), "other", "")}, "a: {b: 3}"},
		{"order", "later ones override, lists as a whole", "", []meta.ValuesReference{configMap("one"), two}, "{a: {b: 2, c: x}, list: [3]}"},
		{"inline over references", "", "a: {b: 9}", []meta.ValuesReference{configMap("one")}, "{a: {b: 9, c: x}, list: [1, 2]}"},
		{"null", "an inline null is one: Helm takes the default away with it", "a: null", []meta.ValuesReference{configMap("one")}, "{a: null, list: [1, 2]}"},
		{"target", "a value at a path", "", []meta.ValuesReference{at(two, "number", "x.z")}, "x: {z: 5}"},
		{"quoted", "quotes make a text of it", "", []meta.ValuesReference{at(two, "quoted", "x")}, `x: "5"`},
		{"target list", "the syntax of --set", "", []meta.ValuesReference{at(two, "list", "x")}, "x: [a, b]"},
		{"target index", "an item of a list", "", []meta.ValuesReference{configMap("one"), at(two, "number", "list[1]")}, "{a: {b: 1, c: x}, list: [1, 5]}"},
		{"target escaped", "a dot in a key", "", []meta.ValuesReference{at(two, "number", `x\.y`)}, `"x.y": 5`},
		{"target null", "Helm takes the default away with it", "a: {b: 1, c: 2}", []meta.ValuesReference{at(two, "null", "a.b")}, "a: {b: null, c: 2}"},
		{"literal", "nothing in it means anything", "", []meta.ValuesReference{literal(at(two, "text", "x.z"))}, "x: {z: 'x,y={z}[0]'}"},
		{"literal number", "it stays a text", "", []meta.ValuesReference{literal(at(two, "number", "x"))}, `x: "5"`},
		{"literal without a target", "it means nothing there", "", []meta.ValuesReference{literal(configMap("one"))}, "{a: {b: 1, c: x}, list: [1, 2]}"},
		{"target over inline", "inside of an inline table it wins", "x: {z: 1}", []meta.ValuesReference{at(two, "number", "x.z")}, "x: {z: 5}"},
		{"inline over target", "at the top it does not, and neither in the toolkit", "x: 1", []meta.ValuesReference{at(two, "number", "x")}, "x: 1"},
		{"optional", "neither the object nor the key has to be there", "a: 1", []meta.ValuesReference{optional(configMap("none")), optional(at(two, "none", ""))}, "a: 1"},
		{"secret", "", "", []meta.ValuesReference{secret, at(secret, "token", "token")}, "{password: hunter2, token: hunter3}"},
		{"empty", "no values", "a: 1", []meta.ValuesReference{at(two, "empty", "")}, "a: 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inline := values(t, tt.inline)
			got, err := ReadValues(t.Context(), cluster, "n", inline, tt.refs)
			if err != nil {
				t.Fatal(err)
			}
			want := Of(values(t, tt.want))
			if got.Digest() != want.Digest() {
				t.Errorf("%s: %v, want %v", tt.reason, got.values, want.values)
			}
			if !reflect.DeepEqual(inline, values(t, tt.inline)) {
				t.Error("the inline values were changed")
			}
		})
	}
	cluster.reads = 0
	got, err := ReadValues(t.Context(), cluster, "n", nil, []meta.ValuesReference{secret, at(secret, "token", "token"), secret})
	if err != nil || cluster.reads != 1 || !reflect.DeepEqual(got.Secrets(), []string{"hunter2", "hunter3"}) {
		t.Errorf("%v, %d reads, secrets %v", err, cluster.reads, got.Secrets())
	}
}

func TestReadValuesErrors(t *testing.T) {
	cluster := &objects{data: map[string]map[string]string{
		"Secret/n/bad": {"values.yaml": "a: b\nhunter2: x: y\n", "text": "hunter2", "brace": "{hunter2", "list": "- hunter2"},
	}}
	secret := meta.ValuesReference{Kind: "Secret", Name: "bad"}
	tests := []struct {
		name, reason string
		ref          meta.ValuesReference
		kind         failure.Kind
		want         string
	}{
		{"no object", "it may come", configMap("none"), failure.NotFound,
			"read the values of spec.valuesFrom[0]: ConfigMap/n/none does not exist; create it, correct spec.valuesFrom[0], or set its optional: true"},
		{"no key", "it may come", at(secret, "none", ""), failure.NotFound,
			`read the values of spec.valuesFrom[0]: Secret/n/bad has no key "none"; add the key, correct spec.valuesFrom[0].valuesKey, or set its optional: true`},
		{"no YAML", "the line is told and the text is not", secret, failure.Invalid,
			`read the values of spec.valuesFrom[0]: Secret/n/bad, key "values.yaml", is not a YAML document of values: line 2; correct it`},
		{"a text", "values are a table", at(secret, "text", ""), failure.Invalid, "is not a YAML document of values; correct it"},
		{"a list", "values are a table", at(secret, "list", ""), failure.Invalid, "is not a YAML document of values; correct it"},
		{"no syntax", "the value is not told", at(secret, "brace", "x"), failure.Invalid,
			`Secret/n/bad, key "brace", cannot be set at "x"; correct spec.valuesFrom[0].targetPath, or set its literal: true`},
		{"other kind", "only two hold values", meta.ValuesReference{Kind: "Pod", Name: "p"}, failure.Invalid, "spec.valuesFrom[0]: read values from Pod/n/p: values are in objects of kind ConfigMap or Secret"},
		{"down", "it may answer later, also for an optional one", optional(configMap("down")), failure.Unavailable, "spec.valuesFrom[0]: read ConfigMap/n/down: the server is down"},
		{"forbidden", "rights are missing", meta.ValuesReference{Kind: "Secret", Name: "forbidden"}, failure.Denied, "spec.valuesFrom[0]: read Secret/n/forbidden: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadValues(t.Context(), cluster, "n", nil, []meta.ValuesReference{tt.ref})
			if failure.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, want %s %q", tt.reason, err, tt.kind, tt.want)
			}
		})
	}
}

// TestSecretsStayOut shows that a template cannot put a value of a Secret into an error.
func TestSecretsStayOut(t *testing.T) {
	cluster := &objects{data: map[string]map[string]string{"Secret/n/creds": {"values.yaml": "password: hunter2\ndeep: [{key: 'two\nlines of text'}]\n"}}}
	given, err := ReadValues(t.Context(), cluster, "n", nil, []meta.ValuesReference{{Kind: "Secret", Name: "creds"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range []string{
		"{{ fail .Values.password }}", `{{ fail (.Values.password | b64enc) }}`, `{{ fail (printf "%q" .Values.deep) }}`,
		"{{ .Values.password.x }}", "{{ tpl (printf \"{{ %s }}\" .Values.password) . }}", "a: {{ .Values.password }}: b", "{{ .Values.password | int64 | repeat }}",
		"{{ index .Values.password \"x\" }}", "{{ required .Values.password .Values.none }}", "{{ template .Values.password }}", "{{ include .Values.password . }}",
	} {
		req := request(t, parent+"-- c/templates/x.yaml --\n"+template+"\n")
		req.Values = given
		_, err := Render(t.Context(), req)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVy") || strings.Contains(err.Error(), "lines of text") {
			t.Errorf("%s: %v", template, err)
		}
	}
}

// TestDigests compares with what the toolkit's own packages compute.
func TestDigests(t *testing.T) {
	for text, want := range knownDigests {
		if got := Of(values(t, text)).Digest(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

var knownDigests = map[string]string{
	"":     "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"{}":   "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"a: 1": "sha256:37b128c59f1f5097f73f82691cb519f1f568667faab5ced1b4ab979d36837eae",
	`{b: {z: 1, a: [x, {d: 1, c: null}]}, a: yes, f: 1.5, big: 12345678901234, t: "yes", e: {}, l: [], m: "a\nb\n"}`: "sha256:10ad97bf9fd7c03963330e488b5df051c82d92bd1f457d01033d1902aa1a073a",
}

func TestPostRenderDigests(t *testing.T) {
	renderers := []helmv2.PostRenderer{{}, {Kustomize: &helmv2.Kustomize{
		Images:  []kustomize.Image{{Name: "nginx", NewTag: "9"}},
		Patches: []kustomize.Patch{{Patch: "a: <b>", Target: &kustomize.Selector{Kind: "Pod"}}},
	}}}
	tests := []struct{ name, reason, got, want string }{
		{"renderers", "as the toolkit computes it", PostRenderersDigest(renderers), "sha256:9345f84426452f695fd5d8d866c71dccf88ef4b5db37c9d23779f83f858008fb"},
		{"an empty list", "that is not the same as none", PostRenderersDigest([]helmv2.PostRenderer{}), "sha256:37517e5f3dc66819f61f5a7bb8ace1921282415f10551d2defa5c3eb0985b570"},
		{"none", "the toolkit leaves the field empty", PostRenderersDigest(nil), ""},
		{"metadata", "as the toolkit computes it", CommonMetadataDigest(&helmv2.CommonMetadata{Labels: map[string]string{"b": "1", "a": "&"}}), "sha256:dcb5213a59f9b783f1eafe61101c72a5d4f22fa82602eb7e7ddf248e4407f5e5"},
		{"no metadata", "the toolkit leaves the field empty", CommonMetadataDigest(nil), ""},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: %s, want %s: %s", tt.name, tt.got, tt.want, tt.reason)
		}
	}
}

// What is set at a path from a Secret is concealed as it arrives: without its quotes, and in its parts.
func TestSecretsSetAtPaths(t *testing.T) {
	t.Parallel()
	cluster := &objects{data: map[string]map[string]string{"Secret/apps/s": {"quoted": `"hunter2"`, "list": "{first1,second2}"}}}
	got, err := ReadValues(t.Context(), cluster, "apps", nil, []meta.ValuesReference{
		{Kind: "Secret", Name: "s", ValuesKey: "quoted", TargetPath: "a.b"}, {Kind: "Secret", Name: "s", ValuesKey: "list", TargetPath: "c"},
	})
	want := []string{`"hunter2"`, "first1", "hunter2", "second2", "{first1,second2}"}
	if err != nil || !reflect.DeepEqual(got.Secrets(), want) {
		t.Errorf("%v, secrets %q, want %q", err, got.Secrets(), want)
	}
	if kept := got.Beyond(map[string]any{"a": "hunter2", "old": "kept"}); !reflect.DeepEqual(kept, []string{"kept"}) {
		t.Errorf("kept of before: %q", kept)
	}
}
