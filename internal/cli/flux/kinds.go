package flux

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// toolkitGroups are the API groups of the toolkit, by their common end.
const toolkitGroups = ".fluxcd.io"

// goingOn are the kinds that the controllers which keep running serve without those
// that stop: receivers and images annotate and clone for themselves.
var goingOn = []string{"Receiver", "Provider", "ImageRepository", "ImagePolicy", "ImageUpdateAutomation"}

// Definition is a kind of the toolkit that the cluster serves.
type Definition struct {
	Name     string // of the CustomResourceDefinition
	Kind     schema.GroupVersionKind
	Versions []string // that are served
}

// Definitions returns the kinds of the toolkit that the cluster serves.
func Definitions(ctx context.Context, c client.Reader) ([]Definition, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinitionList"))
	if err := c.List(ctx, list); err != nil {
		return nil, fmt.Errorf("read the definitions of kinds: %w", err)
	}
	var out []Definition
	for i := range list.Items {
		u := &list.Items[i]
		group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
		if !strings.HasSuffix(group, toolkitGroups) {
			continue
		}
		kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
		d := Definition{Name: u.GetName()}
		versions, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
		for _, v := range versions {
			m, _ := v.(map[string]any)
			name, _ := m["name"].(string)
			if served, _ := m["served"].(bool); served {
				d.Versions = append(d.Versions, name)
			}
			if stored, _ := m["storage"].(bool); stored || d.Kind.Version == "" {
				d.Kind = schema.GroupVersionKind{Group: group, Version: name, Kind: kind}
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// Unserved returns the objects that nobody would serve any more once the controllers
// that Bowline replaces have stopped. served reports whether Bowline serves the kind
// of a definition.
func Unserved(ctx context.Context, c client.Reader, definitions []Definition, served func(Definition) bool) ([]string, error) {
	var out []string
	for _, d := range definitions {
		if served(d) || slices.Contains(goingOn, d.Kind.Kind) {
			continue
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(d.Kind.GroupVersion().WithKind(d.Kind.Kind + "List"))
		if err := c.List(ctx, list); err != nil {
			return nil, fmt.Errorf("look for objects of kind %s: %w", d.Kind.Kind, err)
		}
		for _, o := range list.Items {
			out = append(out, d.Kind.Kind+"/"+o.Namespace+"/"+o.Name)
		}
	}
	return sorted(out), nil
}
