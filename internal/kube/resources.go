package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"

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
// discovery when first asked, after Invalidate, and when a kind is missing. It
// is safe for concurrent use.
type Resources struct {
	discovery discovery.DiscoveryInterfaceWithContext
	clock     clock.PassiveClock
	// reading holds one token: a second question waits for the answer of the
	// first rather than asking again, and gives up when its own time is up.
	reading chan struct{}

	mu     sync.Mutex
	loaded time.Time                            // guarded by mu; zero: not yet, or invalid
	table  map[schema.GroupVersionKind]Resource // guarded by mu
	// learned holds what definitions told before discovery did.
	learned map[schema.GroupVersionKind]Resource // guarded by mu
	// preferred is the version that the server would rather serve.
	preferred map[schema.GroupKind]string // guarded by mu
	// broken holds the groups whose own API server did not answer.
	broken map[schema.GroupVersion]error // guarded by mu
	// changes counts what was learned and forgotten.
	changes uint64 // guarded by mu
}

// freshness is how old the table may be to say that a kind is not served: a
// definition may have been installed since by anybody. It bounds how often
// objects of unknown kinds make us read discovery.
const freshness = time.Second

// NewResources returns a table that reads from d when first asked.
func NewResources(d discovery.DiscoveryInterface) *Resources {
	return &Resources{
		discovery: discovery.ToDiscoveryInterfaceWithContext(d), clock: clock.RealClock{},
		reading: make(chan struct{}, 1), learned: map[schema.GroupVersionKind]Resource{},
	}
}

// ErrUnknownKind is wrapped by the error for a kind that the cluster does not
// serve.
var ErrUnknownKind = errors.New("the cluster does not serve this kind")

// Forget drops what is known of a kind that turned out not to be served, and
// makes the next question read discovery again.
func (r *Resources) Forget(gk schema.GroupKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loaded = time.Time{}
	r.changes++
	maps.DeleteFunc(r.learned, func(gvk schema.GroupVersionKind, _ Resource) bool { return gvk.GroupKind() == gk })
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
	if kind == "" || plural == "" {
		return
	}
	gk := schema.GroupKind{Group: group, Kind: kind}
	r.mu.Lock()
	defer r.mu.Unlock()
	ofKind := func(gvk schema.GroupVersionKind, _ Resource) bool { return gvk.GroupKind() == gk }
	r.changes++
	maps.DeleteFunc(r.table, ofKind) // a version may have gone
	maps.DeleteFunc(r.learned, ofKind)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		name, _, _ := unstructured.NestedString(version, "name")
		served, _, _ := unstructured.NestedBool(version, "served")
		_, hasStatus, _ := unstructured.NestedMap(version, "subresources", "status")
		if !served {
			continue
		}
		r.learned[gk.WithVersion(name)] = Resource{
			GroupVersionResource: schema.GroupVersionResource{Group: group, Version: name, Resource: plural},
			Kind:                 kind, Namespaced: scope == "Namespaced", HasStatus: hasStatus,
		}
	}
}

// Of returns the resource of a kind. An empty version means the server's
// preferred one; a version that is not served is an error. Errors wrap
// ErrUnknownKind, or are of kind failure.Unavailable when the server did not
// answer.
func (r *Resources) Of(ctx context.Context, gvk schema.GroupVersionKind) (Resource, error) {
	if res, ok := r.known(gvk); ok {
		return res, nil
	}
	if err := r.refresh(ctx); err != nil {
		return Resource{}, err
	}
	if res, ok := r.known(gvk); ok {
		return res, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err, ok := r.broken[gvk.GroupVersion()]; ok {
		return Resource{}, &failure.Error{Op: "look up", Kind: failure.Unavailable, Object: gvk.GroupKind().String(), Err: err,
			Remedy: "check the APIService of " + gvk.GroupVersion().String()}
	}
	return Resource{}, r.unknown(gvk)
}

// known answers from the table as it is.
func (r *Resources) known(gvk schema.GroupVersionKind) (Resource, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded.IsZero() {
		return Resource{}, false
	}
	if gvk.Version == "" {
		gvk.Version = r.preferred[gvk.GroupKind()]
	}
	res, ok := r.table[gvk]
	if !ok {
		res, ok = r.learned[gvk]
	}
	if !ok && gvk.Version == "" {
		for have, learned := range r.learned {
			if have.GroupKind() == gvk.GroupKind() {
				return learned, true
			}
		}
	}
	return res, ok
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

// refresh reads discovery, unless it has just been read.
func (r *Resources) refresh(ctx context.Context) error {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return unanswered(ctx.Err())
	}
	r.mu.Lock()
	fresh := !r.loaded.IsZero() && r.clock.Since(r.loaded) < freshness
	r.mu.Unlock()
	if fresh {
		return nil
	}
	groups, lists, err := r.discovery.ServerGroupsAndResourcesWithContext(ctx)
	broken := map[schema.GroupVersion]error{}
	var partial *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &partial) {
		broken = partial.Groups
	} else if err != nil {
		return unanswered(err)
	}
	if err := ctx.Err(); err != nil {
		return unanswered(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table, r.preferred, r.broken = tableOf(lists), preferredOf(groups, lists), broken
	maps.DeleteFunc(r.learned, func(gvk schema.GroupVersionKind, _ Resource) bool {
		_, discovered := r.table[gvk]
		return discovered
	})
	r.loaded = r.clock.Now()
	return nil
}

func unanswered(err error) error {
	return &failure.Error{Op: "read the kinds that the cluster serves", Kind: failure.Unavailable, Err: err}
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
