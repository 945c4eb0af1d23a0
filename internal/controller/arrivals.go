package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// arrivals watches, as metadata and keeping nothing, what a unit may have failed
// for want of and whoever may bring: namespaces, definitions of kinds, service
// accounts and the rights of these. It implements cache.ReflectorStore.
type arrivals struct {
	client   metadata.Interface
	resource schema.GroupVersionResource
	// changes says that an object counts when it changes too: a definition is
	// there for some time before its kind is served.
	changes bool
	// arrived is called for everything that came.
	arrived func()
}

// arrivalsOf returns the watches of everything that units may wait for.
func arrivalsOf(client metadata.Interface, arrived func()) []*arrivals {
	rights := rbacv1.SchemeGroupVersion
	return []*arrivals{
		{client: client, resource: corev1.SchemeGroupVersion.WithResource("namespaces"), arrived: arrived},
		{client: client, resource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), changes: true, arrived: arrived},
		{client: client, resource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"), arrived: arrived},
		{client: client, resource: rights.WithResource("roles"), changes: true, arrived: arrived},
		{client: client, resource: rights.WithResource("rolebindings"), changes: true, arrived: arrived},
		{client: client, resource: rights.WithResource("clusterroles"), changes: true, arrived: arrived},
		{client: client, resource: rights.WithResource("clusterrolebindings"), changes: true, arrived: arrived},
	}
}

// Start implements manager.Runnable.
func (a *arrivals) Start(ctx context.Context) error {
	objects := a.client.Resource(a.resource)
	listWatch := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return objects.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return objects.Watch(ctx, o)
		},
	}
	cache.NewReflectorWithOptions(listWatch, nil, a, cache.ReflectorOptions{
		Name: "arrivals", TypeDescription: a.resource.String(),
	}).RunWithContext(ctx)
	return nil
}

// Add implements cache.ReflectorStore.
func (a *arrivals) Add(any) error {
	a.arrived()
	return nil
}

// Update implements cache.ReflectorStore.
func (a *arrivals) Update(any) error {
	if a.changes {
		a.arrived()
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (a *arrivals) Delete(any) error { return nil }

// Replace implements cache.ReflectorStore. Anything may have come while nobody
// watched.
func (a *arrivals) Replace([]any, string) error {
	a.arrived()
	return nil
}

// Resync implements cache.ReflectorStore.
func (a *arrivals) Resync() error { return nil }
