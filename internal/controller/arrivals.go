package controller

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/bowline-dev/bowline/internal/kube"
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
	// known returns the words by which an object of the resource is known.
	known func(*metav1.PartialObjectMetadata) news
	// arrived is called for everything that came.
	arrived func(news)
}

// arrivalsOf returns the watches of everything that units may wait for.
func arrivalsOf(client metadata.Interface, arrived func(news)) []*arrivals {
	rights := rbacv1.SchemeGroupVersion
	all := []*arrivals{
		{resource: corev1.SchemeGroupVersion.WithResource("namespaces"), known: byName},
		{resource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), changes: true, known: byGroup},
		{resource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"), known: byNamespaceAndName},
		{resource: rights.WithResource("roles"), changes: true, known: byNamespace},
		{resource: rights.WithResource("rolebindings"), changes: true, known: byNamespace},
		{resource: rights.WithResource("clusterroles"), changes: true, known: byNothing},
		{resource: rights.WithResource("clusterrolebindings"), changes: true, known: byNothing},
	}
	for _, a := range all {
		a.client, a.arrived = client, arrived
	}
	return all
}

// What of an object a failure that wants it names in any case.
func byName(o *metav1.PartialObjectMetadata) news             { return news{o.Name} }
func byNamespace(o *metav1.PartialObjectMetadata) news        { return news{o.Namespace} }
func byNamespaceAndName(o *metav1.PartialObjectMetadata) news { return news{o.Namespace, o.Name} }
func byNothing(*metav1.PartialObjectMetadata) news            { return nil }

// byGroup is for definitions, which are called by plural and group: a failure that
// wants one names the kind and the group.
func byGroup(o *metav1.PartialObjectMetadata) news {
	_, group, _ := strings.Cut(o.Name, ".")
	return news{group}
}

// Start implements manager.Runnable.
func (a *arrivals) Start(ctx context.Context) error {
	listWatch := kube.ListWatch(a.client.Resource(a.resource), metav1.ListOptions{}, func(error) {})
	cache.NewReflectorWithOptions(listWatch, nil, a, cache.ReflectorOptions{
		Name: "arrivals", TypeDescription: a.resource.String(),
	}).RunWithContext(ctx)
	return nil
}

// Add implements cache.ReflectorStore.
func (a *arrivals) Add(object any) error {
	if o, ok := object.(*metav1.PartialObjectMetadata); ok {
		a.arrived(a.known(o))
	}
	return nil
}

// Update implements cache.ReflectorStore.
func (a *arrivals) Update(object any) error {
	if a.changes {
		return a.Add(object)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (a *arrivals) Delete(any) error { return nil }

// Replace implements cache.ReflectorStore. Anything may have come while nobody
// watched.
func (a *arrivals) Replace([]any, string) error {
	a.arrived(nil)
	return nil
}

// Resync implements cache.ReflectorStore.
func (a *arrivals) Resync() error { return nil }
