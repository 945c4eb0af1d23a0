package kube

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func connect(t *testing.T) *Cluster {
	t.Helper()
	c, err := NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func gvk(group, version, kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
}

func TestOf(t *testing.T) {
	cases := []struct {
		name, reason string
		kind         schema.GroupVersionKind
		want         Resource
		message      string // of the error, if one is wanted
	}{
		{"core kind without status", "a ConfigMap has no status", gvk("", "v1", "ConfigMap"),
			Resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Kind: "ConfigMap", Namespaced: true}, ""},
		{"kind with status", "a Deployment has one", gvk("apps", "v1", "Deployment"),
			Resource{GroupVersionResource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, Kind: "Deployment", Namespaced: true, HasStatus: true}, ""},
		{"cluster-scoped", "a Namespace is in none", gvk("", "v1", "Namespace"),
			Resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, Kind: "Namespace", HasStatus: true}, ""},
		{"any version", "the server prefers one", gvk("autoscaling", "", "HorizontalPodAutoscaler"),
			Resource{GroupVersionResource: schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
				Kind: "HorizontalPodAutoscaler", Namespaced: true, HasStatus: true}, ""},
		{"unknown kind", "nobody defines it", gvk("example.com", "v1", "Nothing"), Resource{}, "install the CustomResourceDefinition"},
		{"version not served", "the message names those that are", gvk("apps", "v1beta1", "Deployment"), Resource{}, "use one of the served versions [apps/v1]"},
	}
	resources := connect(t).Resources
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := resources.Of(t.Context(), c.kind)
			if got != c.want {
				t.Errorf("got %+v, want %+v: %s", got, c.want, c.reason)
			}
			if (err != nil) != (c.message != "") {
				t.Fatalf("got error %v: %s", err, c.reason)
			}
			if err != nil && (!errors.Is(err, ErrUnknownKind) || failure.KindOf(err) != failure.NotFound || !strings.Contains(err.Error(), c.message)) {
				t.Errorf("the error is %q of kind %q, want one of an unknown kind that says %q", err, failure.KindOf(err), c.message)
			}
		})
	}
}

func definition(namespace, scope string, versions ...string) *unstructured.Unstructured {
	var served []any
	for i, v := range versions {
		served = append(served, map[string]any{"name": v, "served": true, "storage": i == 0, "subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}}})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "gadgets." + namespace + ".example.com"},
		"spec": map[string]any{"group": namespace + ".example.com", "scope": scope, "versions": served,
			"names": map[string]any{"kind": "Gadget", "plural": "gadgets", "singular": "gadget"}},
	}}
}

// A kind that anybody installs after discovery was read is found by asking again,
// and not asked for more often than that.
func TestKindInstalledLater(t *testing.T) {
	namespace := testkit.Namespace(t)
	c := connect(t)
	now := clocktesting.NewFakePassiveClock(time.Now())
	c.Resources.clock = now
	kind := gvk(namespace+".example.com", "v1", "Gadget")
	if _, err := c.Resources.Of(t.Context(), kind); !errors.Is(err, ErrUnknownKind) {
		t.Fatalf("before it is installed: %v", err)
	}
	definitions := c.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := definitions.Create(t.Context(), definition(namespace, "Namespaced", "v1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		now.SetTime(now.Now().Add(freshness))
		res, err := c.Resources.Of(ctx, kind)
		return err == nil && res.Namespaced && res.HasStatus, nil
	})
	if err != nil {
		t.Fatal("the kind is not found after it was installed")
	}
}

func TestLearn(t *testing.T) {
	c := connect(t)
	kind := func(version string) schema.GroupVersionKind { return gvk("learned.example.com", version, "Gadget") }
	if _, err := c.Resources.Of(t.Context(), kind("v1")); !errors.Is(err, ErrUnknownKind) {
		t.Fatalf("before it is learned: %v", err)
	}
	c.Resources.Learn(definition("learned", "Cluster", "v1", "v1beta1"))
	for _, version := range []string{"v1", "v1beta1", ""} {
		if res, err := c.Resources.Of(t.Context(), kind(version)); err != nil || res.Namespaced || !res.HasStatus || res.Resource != "gadgets" {
			t.Errorf("version %q: got %+v, %v; want what the definition says", version, res, err)
		}
	}
	c.Resources.Learn(definition("learned", "Cluster", "v1"))
	if _, err := c.Resources.Of(t.Context(), kind("v1beta1")); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("a version that the definition dropped: %v", err)
	}
	c.Resources.Forget(kind("").GroupKind())
	if _, err := c.Resources.Of(t.Context(), kind("v1")); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("a kind that turned out not to be served: %v", err)
	}
	c.Resources.Learn(nil)
}

// While the API server hangs, a question ends with its own time, also when it
// waits for the answer to another.
func TestOfEndsWithItsContext(t *testing.T) {
	c := connect(t)
	c.Resources.reading <- struct{}{} // somebody reads and gets no answer
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := c.Resources.Of(ctx, gvk("", "v1", "Pod")); failure.KindOf(err) != failure.Unavailable || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want unavailable because its time was up", err)
			}
		})
	}
	wg.Wait()
	<-c.Resources.reading
	if _, err := c.Resources.Of(t.Context(), gvk("", "v1", "Pod")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	config := testkit.Cluster(t)
	config.Host = "https://127.0.0.1:1"
	c, err := NewCluster(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resources.Of(t.Context(), gvk("", "v1", "Pod")); failure.KindOf(err) != failure.Unavailable || errors.Is(err, ErrUnknownKind) {
		t.Errorf("got %v: a server that does not answer says nothing about its kinds", err)
	}
}
