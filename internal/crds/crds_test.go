package crds

import (
	"bytes"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestAll(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, u := range all {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, crd, true); err != nil {
			t.Fatalf("%s: %v", u.GetName(), err)
		}
		got[crd.Name] = crd
	}
	tests := []struct {
		name, reason string
		kind         string
		version      string
		column       string
	}{
		{"buckets.source.toolkit.fluxcd.io", "the engine serves it", "Bucket", "v1", "Ready"},
		{"gitrepositories.source.toolkit.fluxcd.io", "the engine serves it", "GitRepository", "v1", "Ready"},
		{"kustomizations.kustomize.toolkit.fluxcd.io", "the engine serves it", "Kustomization", "v1", "Ready"},
		{"externalartifacts.source.toolkit.fluxcd.io", "the engine serves it", "ExternalArtifact", "v1", "Ready"},
		{"ocirepositories.source.toolkit.fluxcd.io", "the engine serves it", "OCIRepository", "v1", "Ready"},
		{"artifactgenerators.source.extensions.fluxcd.io", "the engine serves it", "ArtifactGenerator", "v1beta1", "Ready"},
		{"helmreleases.helm.toolkit.fluxcd.io", "the engine serves it", "HelmRelease", "v2", "Ready"},
		{"helmrepositories.source.toolkit.fluxcd.io", "the engine serves it", "HelmRepository", "v1", "Ready"},
		{"helmcharts.source.toolkit.fluxcd.io", "the engine serves it", "HelmChart", "v1", "Ready"},
	}
	if len(got) != len(tests) {
		t.Errorf("%d definitions, want %d: one for each kind served and no other", len(got), len(tests))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			crd := got[tt.name]
			if crd == nil {
				t.Fatalf("missing: %s", tt.reason)
			}
			if crd.Spec.Names.Kind != tt.kind {
				t.Errorf("kind %s, want %s", crd.Spec.Names.Kind, tt.kind)
			}
			if len(crd.Spec.Versions) != 1 {
				t.Fatalf("%d versions, want %s alone", len(crd.Spec.Versions), tt.version)
			}
			v := crd.Spec.Versions[0]
			if v.Name != tt.version || !v.Served || !v.Storage {
				t.Errorf("version %s served=%v storage=%v, want %s served and stored", v.Name, v.Served, v.Storage, tt.version)
			}
			if v.Subresources == nil || v.Subresources.Status == nil {
				t.Error("no status subresource: status writes would change the spec's generation")
			}
			found := false
			for _, c := range v.AdditionalPrinterColumns {
				found = found || c.Name == tt.column
			}
			if !found {
				t.Errorf("kubectl get would not show column %s", tt.column)
			}
			if v.Schema.OpenAPIV3Schema.Properties["spec"].Description != "" {
				t.Error("has descriptions; they make the definitions three times as large")
			}
		})
	}
}

func TestYAMLHoldsAll(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(YAML(), []byte("\n---\n")) + 1; got != len(all) {
		t.Errorf("%d documents for %d definitions", got, len(all))
	}
}

func TestEstablished(t *testing.T) {
	condition := func(kind, status string) map[string]any {
		return map[string]any{"status": map[string]any{"conditions": []any{
			map[string]any{"type": "NamesAccepted", "status": "True"},
			map[string]any{"type": kind, "status": status},
		}}}
	}
	tests := []struct {
		name, reason string
		object       map[string]any
		want         bool
	}{
		{"new", "nothing has looked at it yet", map[string]any{}, false},
		{"names accepted only", "the names are free, the API is not served yet", condition("Other", "True"), false},
		{"not established", "the names are taken by another definition", condition("Established", "False"), false},
		{"established", "the API is served", condition("Established", "True"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Established(&unstructured.Unstructured{Object: tt.object}); got != tt.want {
				t.Errorf("got %v, want %v: %s", got, tt.want, tt.reason)
			}
		})
	}
}

// The definitions of the fleet are whole: each has a status of its own, is stored in one version, and tells people
// what its fields mean.
func TestFleet(t *testing.T) {
	all, err := Fleet()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, u := range all {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, crd, true); err != nil {
			t.Fatalf("%s: %v", u.GetName(), err)
		}
		kinds = append(kinds, crd.Spec.Names.Kind)
		if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Subresources.Status == nil {
			t.Errorf("%s: want one version with a status", crd.Name)
		}
		if crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description == "" {
			t.Errorf("%s says nothing to kubectl explain", crd.Name)
		}
	}
	if want := []string{"ClusterAssignment", "ClusterReport", "ClusterTemplate", "FleetCluster", "Placement"}; !slices.Equal(kinds, want) {
		t.Errorf("the kinds are %v, want %v", kinds, want)
	}
}
