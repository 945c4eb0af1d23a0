package local

import (
	"context"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestClusterAPIRunsBesideAControlPlane(t *testing.T) {
	t.Setenv("BOWLINE_CAPI_MANAGER", testkit.Tool(t, "capi-manager"))
	manager, err := newPlane(t).ClusterAPI("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := manager.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, want := range []bool{true, false} {
		started, err := manager.Start(t.Context(), testkit.Cluster(t), testkit.Kubeconfig(t))
		if err != nil || started != want {
			t.Fatalf("Start = %t, %v; want %t; its log ends with: %s", started, err, want, manager.LastWords())
		}
	}
	clusters := dynamic.NewForConfigOrDie(testkit.Cluster(t)).
		Resource(schema.GroupVersionResource{Group: "cluster.x-k8s.io", Version: "v1beta2", Resource: "clusters"}).Namespace("default")
	empty := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": map[string]any{"name": "empty"},
		"spec": map[string]any{"topology": map[string]any{"classRef": map[string]any{"name": "small"}, "version": "latest"}},
	}}
	if _, err := clusters.Create(t.Context(), empty, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("its webhooks do not judge: %v", err)
	}
}

func TestClusterAPISaysWhereItsLogIs(t *testing.T) {
	t.Setenv("BOWLINE_CAPI_MANAGER", "/bin/false")
	manager, err := newPlane(t).ClusterAPI("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = manager.Start(t.Context(), testkit.Cluster(t), testkit.Kubeconfig(t))
	if !errors.Is(err, failure.Of(failure.Unavailable)) || !strings.Contains(err.Error(), manager.Log()) {
		t.Errorf("Start: %v", err)
	}
}

func TestClusterAPIWithoutItsExecutable(t *testing.T) {
	t.Setenv("BOWLINE_CAPI_MANAGER", "")
	t.Setenv("PATH", t.TempDir())
	if _, err := newPlane(t).ClusterAPI(""); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Errorf("ClusterAPI: %v", err)
	}
}
