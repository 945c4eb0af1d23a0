package object

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestDigest(t *testing.T) {
	base := parse(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: val}}")
	// Written down: a digest is kept on the cluster from one version to the next.
	if got, want := Digest(base), "9wGSuoGwJHv_BsMRYusTgw"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	tests := []struct {
		name, reason, object string
		same                 bool
	}{
		{"order", "maps have none", "{data: {x: val}, metadata: {name: a}, kind: ConfigMap, apiVersion: v1}", true},
		{"applied", "a digest cannot hold itself", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, annotations: {fleet.bowline.dev/applied: x}}, data: {x: val}}", true},
		{"annotation", "others count", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, annotations: {fleet.bowline.dev/applied: x, a: b}}, data: {x: val}}", false},
		{"value", "values count", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: other}}", false},
		{"type", "a number is no string", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: 1}}", false},
		{"null", "a field set to nothing is sent", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: val}, immutable: null}", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := parse(t, tt.object)
			before := u.DeepCopy()
			if got := Digest(u) == Digest(base); got != tt.same {
				t.Errorf("%s: same %t, want %t", tt.reason, got, tt.same)
			}
			if before.GetAnnotations()[AppliedDigestAnnotation] != u.GetAnnotations()[AppliedDigestAnnotation] {
				t.Errorf("%s: the object was changed", tt.reason)
			}
		})
	}
}

func BenchmarkDigest(b *testing.B) {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "a", "namespace": "b", "annotations": map[string]any{AppliedDigestAnnotation: "x", "a": "b"}}, "data": map[string]any{"x": "y", "z": "w"}}}
	b.ReportAllocs()
	for b.Loop() {
		Digest(u)
	}
}
