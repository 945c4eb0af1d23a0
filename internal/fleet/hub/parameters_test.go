package hub

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// What is placed may ask for the parameters of a cluster's template, with their defaults. While these are not known, it stays.
func TestParameters(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	s.source("fleet", first)
	c := &v1alpha1.FleetCluster{ObjectMeta: s.meta("a"), Spec: v1alpha1.FleetClusterSpec{Template: &v1alpha1.TemplateReference{Name: "small"}}}
	c.Labels = prod
	s.must(s.Create(s.Context(), c))
	asking := unit("web")
	asking.Kustomization = &apiextensionsv1.JSON{Raw: []byte(strings.Replace(string(asking.Kustomization.Raw), "${cluster.name}", "${parameters.size}", 1))}
	if !strings.Contains(string(asking.Kustomization.Raw), "parameters.size") {
		t.Fatalf("it asks for something else: %s", asking.Kustomization.Raw)
	}
	p := s.place("apps", prod, asking)
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.InvalidUnitReason, "the cluster's parameters are not known: read ClusterTemplate small")
	of := &v1alpha1.ClusterTemplate{ObjectMeta: s.meta("small"), Spec: v1alpha1.ClusterTemplateSpec{
		Parameters: &apiextensionsv1.JSON{Raw: []byte(`{"type":"object","properties":{"size":{"type":"string","default":"tiny"}}}`)},
		Objects:    []v1alpha1.TemplateObject{{Template: apiextensionsv1.JSON{Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`)}}},
	}}
	s.must(s.Create(s.Context(), of))
	holds := func(text string) func(v1alpha1.ClusterAssignmentSpec) bool {
		return func(spec v1alpha1.ClusterAssignmentSpec) bool {
			return len(spec.Placements) == 1 && strings.Contains(string(spec.Placements[0].Units[0].Spec.Raw), text)
		}
	}
	s.assignment("a", "the default", holds("./web/tiny"))
	change(s, of, func(of *v1alpha1.ClusterTemplate) {
		of.Spec.Parameters.Raw = []byte(strings.Replace(string(of.Spec.Parameters.Raw), "tiny", "huge", 1))
	})
	s.assignment("a", "another default", holds("./web/huge"))
	s.must(s.Delete(s.Context(), of))
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.InvalidUnitReason, "the cluster's parameters are not known")
	s.assignment("a", "what it had", holds("./web/huge"))
}
