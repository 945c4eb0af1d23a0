package install_test

import (
	"context"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var clusters = schema.GroupVersionResource{Group: "cluster.x-k8s.io", Version: "v1beta2", Resource: "clusters"}

// create makes the object that is written as YAML.
func create(t *testing.T, resource schema.GroupVersionResource, namespace, text string) (*unstructured.Unstructured, error) {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return dynamic.NewForConfigOrDie(testkit.Cluster(t)).Resource(resource).Namespace(namespace).Create(t.Context(), u, metav1.CreateOptions{})
}

// await watches an object until it is as wanted, and returns it.
func await(t *testing.T, resource schema.GroupVersionResource, u *unstructured.Unstructured, wanted func(*unstructured.Unstructured) bool) *unstructured.Unstructured {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := dynamic.NewForConfigOrDie(testkit.Cluster(t)).Resource(resource).Namespace(u.GetNamespace()).
		Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + u.GetName()})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			t.Fatalf("watch: %v", apierrors.FromObject(event.Object))
		}
		if seen, ok := event.Object.(*unstructured.Unstructured); ok && wanted(seen) {
			return seen
		}
	}
	t.Fatalf("%s/%s is not as wanted in time", u.GetKind(), u.GetName())
	return nil
}

// condition is a condition of u as "status reason", "" where there is none.
func condition(u *unstructured.Unstructured, kind string) string {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			status, _ := m["status"].(string)
			reason, _ := m["reason"].(string)
			return status + " " + reason
		}
	}
	return ""
}
