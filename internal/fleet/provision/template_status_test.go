package provision

import (
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/template"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// A template says whether it can be used, and how many clusters are made from it.
func TestTemplateStatus(t *testing.T) {
	cfg := testkit.Cluster(t)
	fleet, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), cfg, fleet)
	}
	scheme := runtime.NewScheme()
	if err == nil {
		err = v1alpha1.AddToScheme(scheme)
	}
	c, wrong := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil || wrong != nil {
		t.Fatal(err, wrong)
	}
	namespace := testkit.Namespace(t)
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	of := &v1alpha1.ClusterTemplate{ObjectMeta: named("small"), Spec: v1alpha1.ClusterTemplateSpec{Objects: []v1alpha1.TemplateObject{{
		Template: apiextensionsv1.JSON{Raw: []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"${cluster.name}"}}`)},
	}}}}
	from := func(name, template string) client.Object {
		return &v1alpha1.FleetCluster{ObjectMeta: named(name), Spec: v1alpha1.FleetClusterSpec{Template: &v1alpha1.TemplateReference{Name: template}}}
	}
	for _, o := range []client.Object{of, from("a", "small"), from("b", "small"), from("c", "large")} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, reason, object, says string
		status                     metav1.ConditionStatus
	}{
		{"usable", "it compiles", "${cluster.name}", meta.SucceededReason, metav1.ConditionTrue},
		{"unusable", "it asks for what there is not", "${parameters.name}", v1alpha1.InvalidTemplateReason, metav1.ConditionFalse},
	} {
		of.Spec.Objects[0].Template.Raw = []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + tc.object + `"}}`)
		if err := c.Update(t.Context(), of); err != nil {
			t.Fatal(err)
		}
		checks := &checker{room: &room{client: c}, compiler: template.NewCompiler()}
		if _, err := checks.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(of)}); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(of), of); err != nil {
			t.Fatal(err)
		}
		ready := apimeta.FindStatusCondition(of.Status.Conditions, meta.ReadyCondition)
		if of.Status.Clusters != 2 || of.Status.ObservedGeneration != of.Generation || ready == nil || ready.Status != tc.status || ready.Reason != tc.says {
			t.Errorf("%s: %+v: %s", tc.name, of.Status, tc.reason)
		}
	}
}
