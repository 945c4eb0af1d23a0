package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/bowline-dev/bowline/internal/cli/flux"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
)

// reach says which cluster it is.
func (m *migration) reach(context.Context) (string, error) {
	d, err := discovery.NewDiscoveryClientForConfig(m.cluster.config)
	if err != nil {
		return "", err
	}
	version, err := d.ServerVersion()
	if err != nil {
		return "", err
	}
	return "Kubernetes " + version.GitVersion + " at " + m.cluster.host(), nil
}

// mayDo asks for all rights before the first is needed.
func (m *migration) mayDo(ctx context.Context) (string, error) {
	ns := m.options.fluxNamespace
	settings, _ := settingsName(m.options.settings) // it was read before
	needed := []authorizationv1.ResourceAttributes{
		{Verb: "list", Group: "apps", Resource: "deployments", Namespace: ns},
		{Verb: "patch", Group: "apps", Resource: "deployments", Namespace: ns},
		{Verb: "list", Resource: "pods", Namespace: ns},
		{Verb: "list", Group: "coordination.k8s.io", Resource: "leases", Namespace: ns},
		{Verb: "get", Resource: "configmaps", Namespace: settings.Namespace},
		{Verb: "create", Resource: "configmaps", Namespace: settings.Namespace},
		{Verb: "patch", Resource: "configmaps", Namespace: settings.Namespace},
		{Verb: "list", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "create", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "patch", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
	}
	for _, k := range append([]kind{helmReleaseKind()}, append(sourceKinds(), kustomizationKind())...) {
		needed = append(needed, authorizationv1.ResourceAttributes{Verb: "list", Group: k.gvk.Group, Resource: k.words[0]})
	}
	var lacking []string
	for _, right := range needed {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right}}
		if err := m.cluster.Create(ctx, review); err != nil {
			return "", fmt.Errorf("ask for rights: %w", err)
		}
		if !review.Status.Allowed {
			lacking = append(lacking, right.Verb+" "+right.Resource+inNamespace(right.Namespace))
		}
	}
	if len(lacking) > 0 {
		return "", &failure.Error{Op: "take over from Flux", Kind: failure.Denied,
			Err: fmt.Errorf("the rights of the kubeconfig lack: %s", strings.Join(lacking, ", ")), Remedy: "nothing was changed; use those of an administrator"}
	}
	return "enough", nil
}

func inNamespace(ns string) string {
	if ns == "" {
		return ""
	}
	return " in namespace " + ns
}

// findFlux says which Flux it is and whether it can be taken over from.
func (m *migration) findFlux(ctx context.Context) (string, error) {
	var err error
	if m.flux, err = flux.Find(ctx, m.cluster, m.options.fluxNamespace); err != nil {
		return "", err
	}
	if err := m.flux.Supported(); err != nil {
		return "", err
	}
	var words []string
	for _, c := range m.flux.Controllers {
		word := c.Name + " " + c.Tag()
		if c.Stopped() {
			word += " (stopped)"
		}
		words = append(words, word)
	}
	return strings.TrimSpace(m.flux.Version+" in namespace "+m.flux.Namespace) + ": " + strings.Join(words, ", "), nil
}

// readKinds checks that the cluster serves the versions that the engine reads.
func (m *migration) readKinds(ctx context.Context) (string, error) {
	var err error
	if m.definitions, err = flux.Definitions(ctx, m.cluster); err != nil {
		return "", err
	}
	for _, gvk := range []schema.GroupVersionKind{gitRepositoryKind().gvk, kustomizationKind().gvk} {
		i := slices.IndexFunc(m.definitions, func(d flux.Definition) bool { return d.Kind.GroupKind() == gvk.GroupKind() })
		if i < 0 || !slices.Contains(m.definitions[i].Versions, gvk.Version) {
			return "", &failure.Error{Op: "read the kind", Object: gvk.Kind, Kind: failure.Unsupported,
				Err: fmt.Errorf("the cluster does not serve %s", gvk.GroupVersion()), Remedy: "upgrade Flux first, and migrate the objects with `flux migrate`"}
		}
	}
	return "the definitions on the cluster serve what the engine reads, and stay as they are", nil
}

// readObjects looks for fields that a newer Flux knows and this program does not:
// to leave one out silently could deliver the wrong thing.
func (m *migration) readObjects(ctx context.Context) (string, error) {
	var errs []error
	var words []string
	for _, k := range kinds() {
		if !slices.ContainsFunc(m.definitions, func(d flux.Definition) bool { return d.Kind.GroupKind() == k.gvk.GroupKind() }) {
			continue
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(k.gvk.GroupVersion().WithKind(k.gvk.Kind + "List"))
		if err := m.cluster.List(ctx, list); err != nil {
			return "", fmt.Errorf("read objects of kind %s: %w", k.gvk.Kind, err)
		}
		for _, u := range list.Items {
			errs = append(errs, knowsAll(&u, k.newObject()))
		}
		if len(list.Items) > 0 {
			words = append(words, fmt.Sprintf("%d of kind %s", len(list.Items), k.gvk.Kind))
		}
	}
	if len(words) == 0 {
		words = []string{"none"}
	}
	return strings.Join(words, ", "), errors.Join(errs...)
}

// knowsAll reads the spec as that of a type, and lets no field go unread.
func knowsAll(u *unstructured.Unstructured, as any) error {
	text, err := json.Marshal(map[string]any{"spec": u.Object["spec"]})
	if err != nil {
		return err
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(as); err != nil {
		return &failure.Error{Op: "read", Object: u.GetKind() + "/" + u.GetNamespace() + "/" + u.GetName(), Kind: failure.Unsupported,
			Err: fmt.Errorf("spec: %w", err), Remedy: "this version of Bowline does not know that field: remove it, or stay with Flux"}
	}
	return nil
}

// findUnserved looks for what nobody would serve after the controllers have stopped.
func (m *migration) findUnserved(ctx context.Context) (string, error) {
	own, err := crds.All()
	if err != nil {
		return "", err
	}
	unserved, err := flux.Unserved(ctx, m.cluster, m.definitions, func(d flux.Definition) bool {
		return slices.ContainsFunc(own, func(u *unstructured.Unstructured) bool { return u.GetName() == d.Name })
	})
	if err != nil {
		return "", err
	}
	if len(unserved) == 0 {
		return "nothing", nil
	}
	names := strings.Join(unserved, ", ")
	if m.options.leaveUnserved {
		return count(len(unserved), "object") + ", which nobody serves from then on: " + names, nil
	}
	return "", &failure.Error{Op: "take over from Flux", Kind: failure.Unsupported,
		Err: fmt.Errorf("nobody would serve %s any more: %s", count(len(unserved), "object"), names),
		Remedy: "nothing was changed; stay with Flux until Bowline serves these kinds, " +
			"or go on with --leave-unserved: what they delivered stays, and nothing new is fetched or told for them"}
}

// readTenancy finds out what the engine has to be told to treat tenants as Flux did.
func (m *migration) readTenancy(context.Context) (string, error) {
	known := settable()
	var err error
	m.settings, err = m.flux.Settings(func(name string) bool { return known[name] != nil })
	if err != nil {
		return "", err
	}
	var words []string
	for _, key := range slices.Sorted(maps.Keys(m.settings)) {
		words = append(words, key+"="+m.settings[key])
	}
	return strings.Join(words, ", ") + ", as Flux has it", nil
}

// replaced names the controllers that Bowline replaces.
func (m *migration) replaced() string {
	var names []string
	for _, c := range m.flux.Replaced() {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}
