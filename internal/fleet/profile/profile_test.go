package profile_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/profile"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m)
}

// definitionFile may be replaced with the one that the standard publishes, to see that profiles fit that too.
var definitionFile = cmp.Or(os.Getenv("BOWLINE_CLUSTERPROFILE_CRD"), "testdata/clusterprofile.yaml")

// publish runs the controller in a namespace of its own until the test ends.
func publish(t *testing.T) (client.Client, string) {
	t.Helper()
	cfg := testkit.Cluster(t)
	all, err := crds.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(definitionFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	standard, err := crds.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range standard {
		d.SetAnnotations(map[string]string{"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/tree/master/keps/sig-multicluster/4322-cluster-inventory"})
	}
	scheme := runtime.NewScheme()
	if err := crds.Install(t.Context(), cfg, append(all, standard...)); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	namespace, twice := testkit.Namespace(t), true
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{Scheme: scheme, Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &twice}, Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}}})
	if err == nil {
		err = profile.Register(mgr)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller ended: %v", err)
		}
	})
	return c, namespace
}

func profileOf(t *testing.T, c client.Client, cluster *v1alpha1.FleetCluster, what string, is func(*unstructured.Unstructured) bool) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		u = &unstructured.Unstructured{}
		u.SetGroupVersionKind(profile.Kind)
		err := c.Get(ctx, client.ObjectKeyFromObject(cluster), u)
		return err == nil && is(u), client.IgnoreNotFound(err)
	})
	if err != nil {
		t.Fatalf("%s: %v; it is %v", what, err, u.Object)
	}
	return u
}

// condition returns status and reason of a condition.
func condition(u *unstructured.Unstructured, kind string) string {
	all, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range all {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return fmt.Sprint(m["status"], " ", m["reason"])
		}
	}
	return ""
}

func property(u *unstructured.Unstructured, name string) string {
	all, _, _ := unstructured.NestedSlice(u.Object, "status", "properties")
	for _, p := range all {
		if m, ok := p.(map[string]any); ok && m["name"] == name {
			return fmt.Sprint(m["value"])
		}
	}
	return ""
}

func change(t *testing.T, c client.Client, cluster *v1alpha1.FleetCluster, f func(*v1alpha1.FleetClusterStatus)) {
	t.Helper()
	before := cluster.DeepCopy()
	f(&cluster.Status)
	if err := c.Status().Patch(t.Context(), cluster, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

func set(s *v1alpha1.FleetClusterStatus, kind string, status metav1.ConditionStatus, reason string) {
	apimeta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: "for the test"})
}

// A FleetCluster has a profile from its first moment on, which tells what the hub knows.
func TestProfile(t *testing.T) {
	c, namespace := publish(t)
	cluster := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop",
		Labels: map[string]string{"zone": "north", "kustomize.toolkit.fluxcd.io/name": "fleet", "app.kubernetes.io/managed-by": "somebody"}},
		Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	if err := c.Create(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	u := profileOf(t, c, cluster, "published", func(u *unstructured.Unstructured) bool { return condition(u, "Joined") == "Unknown Unknown" })
	name, _, _ := unstructured.NestedString(u.Object, "spec", "displayName")
	manager, _, _ := unstructured.NestedString(u.Object, "spec", "clusterManager", "name")
	if labels := u.GetLabels(); len(labels) != 2 || labels["zone"] != "north" || labels[profile.ManagerLabel] != profile.Manager || name != "shop" || manager != profile.Manager {
		t.Errorf("published as %q of %q with %v", name, manager, labels)
	}
	if !metav1.IsControlledBy(u, cluster) {
		t.Error("it would stay behind its FleetCluster")
	}

	change(t, c, cluster, func(s *v1alpha1.FleetClusterStatus) {
		s.KubernetesVersion, s.ClusterID, s.Endpoint, s.Provider, s.Nodes = "v1.36.3", "the-uid", "https://shop.example.com", "LocalCluster", 3
		set(s, v1alpha1.ProvisionedCondition, metav1.ConditionTrue, v1alpha1.ProvisionedReason)
		set(s, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
		set(s, v1alpha1.JoinedCondition, metav1.ConditionTrue, v1alpha1.JoinedReason)
	})
	u = profileOf(t, c, cluster, "healthy", func(u *unstructured.Unstructured) bool {
		return condition(u, "ControlPlaneHealthy") == "True LeaseRenewed" && condition(u, "Joined") == "True Joined"
	})
	version, _, _ := unstructured.NestedString(u.Object, "status", "version", "kubernetes")
	got := []string{version, property(u, "cluster.clusterset.k8s.io"), property(u, "fleet.bowline.dev/endpoint"), property(u, "fleet.bowline.dev/provider"), property(u, "fleet.bowline.dev/nodes")}
	if want := "v1.36.3 the-uid https://shop.example.com LocalCluster 3"; strings.Join(got, " ") != want {
		t.Errorf("told: %s, want %s", strings.Join(got, " "), want)
	}

	// Another tool's part of the status stays, and so does what has not changed.
	theirs := u.DeepCopy()
	all, _, _ := unstructured.NestedSlice(theirs.Object, "status", "properties")
	if err := unstructured.SetNestedSlice(theirs.Object, append(all, map[string]any{"name": "theirs", "value": "x"}), "status", "properties"); err != nil {
		t.Fatal(err)
	}
	if err := c.Status().Update(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	change(t, c, cluster, func(s *v1alpha1.FleetClusterStatus) {
		set(s, v1alpha1.ReachableCondition, metav1.ConditionFalse, v1alpha1.LeaseExpiredReason)
	})
	u = profileOf(t, c, cluster, "not heard of", func(u *unstructured.Unstructured) bool {
		return condition(u, "ControlPlaneHealthy") == "Unknown LeaseExpired"
	})
	if property(u, "theirs") != "x" {
		t.Error("another tool's property is gone")
	}
	cluster.Labels = map[string]string{"zone": "south"}
	if err := c.Update(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	profileOf(t, c, cluster, "relabelled", func(u *unstructured.Unstructured) bool { return u.GetLabels()["zone"] == "south" })
}

// Somebody else's profile of the same name is left alone.
func TestForeign(t *testing.T) {
	c, namespace := publish(t)
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"clusterManager": map[string]any{"name": "another"}}}}
	u.SetGroupVersionKind(profile.Kind)
	u.SetNamespace(namespace)
	u.SetName("shop")
	if err := c.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	made := func(name string) *v1alpha1.FleetCluster {
		cluster := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
		if err := c.Create(t.Context(), cluster); err != nil {
			t.Fatal(err)
		}
		return cluster
	}
	shop := made("shop")
	profileOf(t, c, made("later"), "published", func(*unstructured.Unstructured) bool { return true })
	now := profileOf(t, c, shop, "still there", func(*unstructured.Unstructured) bool { return true })
	if now.GetResourceVersion() != u.GetResourceVersion() {
		t.Errorf("it was changed: %v", now.Object)
	}
}
