package pivot

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	clusterctl "sigs.k8s.io/cluster-api/cmd/clusterctl/client/cluster"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// side is a cluster that serves the fleet's kinds and those of Cluster API, with clusterctl's inventory.
func side(t *testing.T, config *rest.Config) Side {
	t.Helper()
	core, err := install.Core()
	must(t, err)
	fleet, err := crds.Fleet()
	must(t, err)
	toolkit, err := crds.All()
	must(t, err)
	toolkit = slices.DeleteFunc(toolkit, func(u *unstructured.Unstructured) bool { return !strings.HasPrefix(u.GetName(), "kustomizations.") })
	must(t, crds.Install(t.Context(), config, slices.Concat(toolkit, fleet, core.Definitions)))
	s, err := Connect(t.Context(), config)
	must(t, err)
	// The client of before the definitions knows none of them.
	must(t, clusterctl.New(clusterctl.Kubeconfig{}, nil, clusterctl.InjectProxy(proxy{s.Config, s.Client})).ProviderInventory().EnsureCustomResourceDefinitions(t.Context()))
	s, err = Connect(t.Context(), config)
	must(t, err)
	must(t, client.IgnoreAlreadyExists(s.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fleet"}})))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A move that was interrupted between the deletion of an object and the end of its finalizers goes on.
func TestMoveGoesOn(t *testing.T) {
	from, to := side(t, testkit.Cluster(t)), side(t, testkit.Other(t))
	o := Options{From: from, To: to, Tell: func(string, string) {}}
	member := fleetCluster("hub")
	member.Namespace, member.Spec.Template, member.Spec.Join = "moved", nil, &v1alpha1.JoinSpec{}
	cluster := parsed(t, strings.ReplaceAll(capiCluster, "namespace: fleet", "namespace: moved, finalizers: [example.org/looked-after]")+
		"spec: {paused: true, controlPlaneEndpoint: {host: localhost, port: 1}}\n")
	for _, s := range []Side{from, to} {
		must(t, s.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "moved"}}))
		must(t, s.Client.Create(t.Context(), cluster.DeepCopy()))
	}
	must(t, from.Client.Create(t.Context(), &member))
	key := client.ObjectKeyFromObject(&cluster)
	must(t, from.Client.Get(t.Context(), key, &cluster))
	ready := map[string]any{"type": clusterv1.ClusterControlPlaneInitializedCondition, "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
	must(t, unstructured.SetNestedSlice(cluster.Object, []any{ready}, "status", "conditions"))
	must(t, unstructured.SetNestedField(cluster.Object, true, "status", "initialization", "infrastructureProvisioned"))
	must(t, from.Client.Status().Update(t.Context(), &cluster))
	must(t, from.Client.Delete(t.Context(), &cluster))

	must(t, o.move(t.Context()))
	if err := from.Client.Get(t.Context(), key, &cluster); !apierrors.IsNotFound(err) {
		t.Errorf("it is still where it was: %v", err)
	}
	moved := &clusterv1.Cluster{}
	must(t, to.Client.Get(t.Context(), key, moved))
	if moved.DeletionTimestamp != nil || moved.Spec.Paused != nil {
		t.Errorf("it was deleted at %v, and paused is %v", moved.DeletionTimestamp, moved.Spec.Paused)
	}
	must(t, from.Client.Delete(t.Context(), &member))
}

// A pivot is refused while the target's Cluster API is not what the hub's objects need, and what is in the way is named.
func TestSurveyOfClusterAPI(t *testing.T) {
	from, to := side(t, testkit.Cluster(t)), side(t, testkit.Other(t))
	o := Options{From: from, To: to, Cluster: types.NamespacedName{Namespace: "fleet", Name: "hub"}}
	create := func(s Side, o client.Object) {
		t.Helper()
		must(t, s.Client.Create(t.Context(), o))
	}
	hub := fleetCluster("hub")
	hub.Spec.Template, hub.Spec.Join = nil, &v1alpha1.JoinSpec{}
	conditions := hub.Status.Conditions
	create(from, &hub)
	for i := range conditions {
		conditions[i].Reason, conditions[i].LastTransitionTime = "Test", metav1.Now()
	}
	hub.Status.Conditions, hub.Status.ClusterID = conditions, string(to.ID)
	must(t, from.Client.Status().Update(t.Context(), &hub))
	cluster := parsed(t, capiCluster+"spec: {controlPlaneEndpoint: {host: localhost, port: 1}}\n")
	create(from, &cluster)
	ready := map[string]any{"type": clusterv1.ClusterControlPlaneInitializedCondition, "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
	must(t, unstructured.SetNestedSlice(cluster.Object, []any{ready}, "status", "conditions"))
	must(t, from.Client.Status().Update(t.Context(), &cluster))

	provider := func(version string) *clusterctlv1.Provider {
		return &clusterctlv1.Provider{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "cluster-api"}, ProviderName: "cluster-api", Type: "CoreProvider", Version: version}
	}
	manager := func(image string) *appsv1.Deployment {
		labels := map[string]string{clusterv1.ProviderNameLabel: "cluster-api"}
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "capi", Labels: labels}, Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "manager", Image: image}}}},
		}}
	}
	relabel := func(s Side, change func(map[string]string)) {
		t.Helper()
		d := &apiextensionsv1.CustomResourceDefinition{}
		must(t, s.Client.Get(t.Context(), client.ObjectKey{Name: "clusters.cluster.x-k8s.io"}, d))
		change(d.Labels)
		must(t, s.Client.Update(t.Context(), d))
	}
	older := provider("v1.12.0")
	for _, step := range []struct {
		name, reason string
		change       func()
		want         []string
	}{
		{"nothing", "both serve the same", func() {}, nil},
		{"not on the target", "clusterctl's move would refuse", func() { create(from, provider("v1.13.6")) },
			[]string{"provider cluster-api of Cluster API: the hub has v1.13.6, and the target has not got it; "}},
		{"older", "clusterctl's move would refuse", func() { create(to, older) },
			[]string{"provider cluster-api of Cluster API: the hub has v1.13.6, and the target v1.12.0, which is older; bring the target"}},
		{"newer", "clusterctl's move allows it", func() { older.Version = "v1.14.0"; must(t, to.Client.Update(t.Context(), older)) }, nil},
		{"what runs is older", "the inventory does not hear of images", func() {
			create(from, manager("registry.k8s.io:5000/cluster-api/cluster-api-controller:v1.13.6@sha256:"+strings.Repeat("0", 64)))
			create(to, manager("registry.example.com/cluster-api-controller:v1.9.0"))
		}, []string{"provider cluster-api of Cluster API: the hub has v1.13.6, and the target v1.9.0, which is older; "}},
		{"another contract", "the kind's label says which", func() {
			must(t, to.Client.Delete(t.Context(), manager("")))
			create(to, manager("cluster-api-controller:v1.13.6"))
			relabel(from, func(l map[string]string) {
				l["cluster.x-k8s.io/v1beta2"], l["cluster.x-k8s.io/v1beta1"] = "v1beta2", "v1beta1"
			})
			relabel(to, func(l map[string]string) { l["cluster.x-k8s.io/v1beta1"] = "v1beta1" })
		}, []string{"CustomResourceDefinition/clusters.cluster.x-k8s.io: on the hub it follows the contract v1beta2 of Cluster API, and on the target v1beta1; "}},
		{"no label", "clusterctl's move would move nothing, and say nothing", func() {
			relabel(to, func(l map[string]string) { l["cluster.x-k8s.io/v1beta2"] = "v1beta2" })
			relabel(from, func(l map[string]string) { delete(l, clusterctlv1.ClusterctlLabel) })
		}, []string{"CustomResourceDefinition/clusters.cluster.x-k8s.io: Cluster API's move passes over kinds without the label clusterctl.cluster.x-k8s.io; "}},
		{"not served", "there is nowhere to move to", func() {
			relabel(from, func(l map[string]string) { l[clusterctlv1.ClusterctlLabel] = "" })
			must(t, to.Client.Delete(t.Context(), &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "clusters.cluster.x-k8s.io"}}))
		}, []string{"Cluster cluster.x-k8s.io/v1beta2: the target does not serve this version of the kind; "}},
	} {
		step.change()
		plan, err := o.Survey(t.Context())
		must(t, err)
		if !slices.Equal(plan.Moves, []string{"Cluster/fleet/hub"}) {
			t.Fatalf("%s: it would move %v", step.name, plan.Moves)
		}
		if len(plan.Obstacles) != len(step.want) {
			t.Fatalf("%s: %s: %v", step.name, step.reason, plan.Obstacles)
		}
		for i, o := range plan.Obstacles {
			if !strings.HasPrefix(o.String(), step.want[i]) {
				t.Errorf("%s: %s: %q, want %q", step.name, step.reason, o, step.want[i])
			}
		}
	}
}
