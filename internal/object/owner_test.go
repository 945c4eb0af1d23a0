package object

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestOwner(t *testing.T) {
	want := Owner{Group: KustomizeGroup, Name: "apps", Namespace: "flux-system"}
	for name, obj := range map[string]map[string]any{
		"no metadata": {},
		"no labels":   {"metadata": map[string]any{"name": "x"}},
		"labels":      {"metadata": map[string]any{"labels": map[string]any{"keep": "me", KustomizeGroup + "/name": "other"}}},
	} {
		u := &unstructured.Unstructured{Object: obj}
		keep := u.GetLabels()["keep"]
		SetOwner(u, want)
		if got, ok := OwnerOf(u.GetLabels(), KustomizeGroup); !ok || got != want {
			t.Errorf("%s: owner %v %t, want %v", name, got, ok, want)
		}
		if u.GetLabels()["keep"] != keep {
			t.Errorf("%s: another label is lost", name)
		}
		if got, ok := OwnerOf(u.GetLabels(), HelmGroup); ok {
			t.Errorf("%s: owner %v in another group", name, got)
		}
	}
	if _, ok := OwnerOf(nil, KustomizeGroup); ok {
		t.Error("an object without labels has an owner")
	}
}
