package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Resource is a kind as the cluster serves it.
type Resource struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
	// HasStatus says whether the kind has a status subresource.
	HasStatus bool
}

// GroupKind returns the API group and kind.
func (r Resource) GroupKind() schema.GroupKind {
	return schema.GroupKind{Group: r.Group, Kind: r.Kind}
}

// Resources is the table of the kinds that a cluster serves, read from
// discovery when first asked and again after Invalidate or when a kind is
// missing since the last Invalidate.
type Resources struct {
	discovery discovery.DiscoveryInterface

	mu     sync.Mutex
	loaded bool
	table  map[schema.GroupVersionKind]Resource
	// preferred is the version that the server would rather serve.
	preferred map[schema.GroupKind]string
	// broken holds the groups whose own API server did not answer.
	broken map[schema.GroupVersion]error
}

// NewResources returns a table that reads from d when first asked.
func NewResources(d discovery.DiscoveryInterface) *Resources {
	return &Resources{discovery: d}
}

// ErrUnknownKind is wrapped by the error for a kind that the cluster does not
// serve.
var ErrUnknownKind = errors.New("the cluster does not serve this kind")

// Invalidate makes the next question read discovery again. It is called when a
// CustomResourceDefinition or an APIService changed.
func (r *Resources) Invalidate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded = false
}

// Learn adds the kinds that a CustomResourceDefinition defines. Discovery lags
// behind a definition that was just established; the definition itself does not.
func (r *Resources) Learn(definition *unstructured.Unstructured) {
	if definition == nil {
		return
	}
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
	plural, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	scope, _, _ := unstructured.NestedString(definition.Object, "spec", "scope")
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	gk := schema.GroupKind{Group: group, Kind: kind}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		return // discovery is read anew, and by then it knows
	}
	for _, v := range versions {
		version, _ := v.(map[string]any)
		name, _, _ := unstructured.NestedString(version, "name")
		served, _, _ := unstructured.NestedBool(version, "served")
		_, hasStatus, _ := unstructured.NestedMap(version, "subresources", "status")
		if !served || kind == "" || plural == "" {
			continue
		}
		gvr := schema.GroupVersionResource{Group: group, Version: name, Resource: plural}
		r.table[gk.WithVersion(name)] = Resource{
			GroupVersionResource: gvr, Kind: kind, Namespaced: scope == "Namespaced", HasStatus: hasStatus,
		}
		if _, ok := r.preferred[gk]; !ok {
			r.preferred[gk] = name
		}
	}
}

// Of returns the resource of a kind. An empty version means the server's
// preferred one; a version that is not served is an error. Errors wrap
// ErrUnknownKind, or are of kind failure.Unavailable when the server did not
// answer.
func (r *Resources) Of(ctx context.Context, gvk schema.GroupVersionKind) (Resource, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		if err := r.load(ctx); err != nil {
			return Resource{}, err
		}
	}
	version := gvk.Version
	if version == "" {
		version = r.preferred[gvk.GroupKind()]
	}
	if res, ok := r.table[gvk.GroupKind().WithVersion(version)]; ok {
		return res, nil
	}
	if err, ok := r.broken[gvk.GroupVersion()]; ok {
		return Resource{}, &failure.Error{Op: "look up", Kind: failure.Unavailable, Object: gvk.GroupKind().String(), Err: err,
			Remedy: "check the APIService of " + gvk.GroupVersion().String()}
	}
	return Resource{}, r.unknown(gvk)
}

func (r *Resources) unknown(gvk schema.GroupVersionKind) error {
	remedy := "install the CustomResourceDefinition that defines it, or correct apiVersion and kind"
	var served []string
	for have := range r.table {
		if have.GroupKind() == gvk.GroupKind() {
			served = append(served, have.GroupVersion().String())
		}
	}
	if len(served) > 0 {
		slices.Sort(served)
		remedy = fmt.Sprintf("use one of the served versions %v", served)
	}
	return &failure.Error{Op: "look up", Kind: failure.NotFound,
		Object: fmt.Sprintf("kind %s in %s", gvk.Kind, gvk.GroupVersion()), Err: ErrUnknownKind, Remedy: remedy}
}

// load reads discovery. The lock is held: a second question waits for the
// answer of the first rather than asking again.
func (r *Resources) load(ctx context.Context) error {
	groups, lists, err := r.discovery.ServerGroupsAndResources()
	broken := map[schema.GroupVersion]error{}
	var partial *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &partial) {
		broken = partial.Groups
	} else if err != nil {
		return &failure.Error{Op: "read the kinds that the cluster serves", Kind: failure.Unavailable, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.table, r.preferred, r.broken = tableOf(lists), preferredOf(groups, lists), broken
	r.loaded = true
	return nil
}

func tableOf(lists []*metav1.APIResourceList) map[schema.GroupVersionKind]Resource {
	table := map[schema.GroupVersionKind]Resource{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		status := map[string]bool{}
		for _, res := range list.APIResources {
			if name, ok := strings.CutSuffix(res.Name, "/status"); ok {
				status[name] = true
			}
		}
		for _, res := range list.APIResources {
			if strings.Contains(res.Name, "/") || !slices.Contains(res.Verbs, "patch") {
				continue
			}
			table[gv.WithKind(res.Kind)] = Resource{
				GroupVersionResource: gv.WithResource(res.Name), Kind: res.Kind,
				Namespaced: res.Namespaced, HasStatus: status[res.Name],
			}
		}
	}
	return table
}

func preferredOf(groups []*metav1.APIGroup, lists []*metav1.APIResourceList) map[schema.GroupKind]string {
	order := map[string]string{}
	for _, g := range groups {
		order[g.Name] = g.PreferredVersion.Version
	}
	preferred := map[schema.GroupKind]string{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, res := range list.APIResources {
			gk := schema.GroupKind{Group: gv.Group, Kind: res.Kind}
			if _, seen := preferred[gk]; !seen || order[gv.Group] == gv.Version {
				preferred[gk] = gv.Version
			}
		}
	}
	return preferred
}

// builtin lists the API groups of Kubernetes' own API server. They cannot be
// served by custom resources.
var builtin = []string{
	"", "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "apps",
	"authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch", "certificates.k8s.io",
	"coordination.k8s.io", "discovery.k8s.io", "events.k8s.io", "flowcontrol.apiserver.k8s.io",
	"networking.k8s.io", "node.k8s.io", "policy", "rbac.authorization.k8s.io", "resource.k8s.io",
	"scheduling.k8s.io", "storage.k8s.io",
}

// Builtin reports whether the API group is one of Kubernetes' own API server,
// whose schema is known to be complete.
func Builtin(group string) bool { return slices.Contains(builtin, group) }
