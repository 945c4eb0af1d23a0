// Command components prints what a Cluster API provider needs on an API server, as a stream of YAML
// documents: its custom resource definitions and its webhook configurations, as its own
// kustomization makes them, without descriptions and without what cert-manager is told.
//
// Of each kind there is the version that is stored and no other. The API server keeps what is
// served in every version in memory, and would have the manager convert each object whenever
// it changes; and without the manager it could not tell anybody of the objects in the others.
//
// Usage: components MODULE-FOLDER
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// managed is the label by which `clusterctl` knows what belongs to a provider; its move of
// clusters to another hub looks at the kinds that carry it.
const managed = "clusterctl.cluster.x-k8s.io"

// kinds are those that belong to the API server, in the order in which they are printed.
var kinds = []string{"CustomResourceDefinition", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "components:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: components MODULE-FOLDER")
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(args[0], "config", "default"))
	if err != nil {
		return fmt.Errorf("build the kustomization of %s: %w", args[0], err)
	}
	components, err := choose(built)
	if err != nil {
		return err
	}
	for _, u := range components {
		clean(u)
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			return fmt.Errorf("print %s: %w", u.GetName(), err)
		}
		if _, err := fmt.Fprintf(out, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the objects of the kinds wanted, in the order in which they are printed.
func choose(built resmap.ResMap) ([]*unstructured.Unstructured, error) {
	var chosen []*unstructured.Unstructured
	for _, r := range built.Resources() {
		if !slices.Contains(kinds, r.GetKind()) {
			continue
		}
		text, err := r.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", r.CurId(), err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(text); err != nil {
			return nil, fmt.Errorf("read %s: %w", r.CurId(), err)
		}
		chosen = append(chosen, u)
	}
	if len(chosen) == 0 {
		return nil, errors.New("the kustomization holds no custom resource definition and no webhook")
	}
	slices.SortFunc(chosen, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(slices.Index(kinds, a.GetKind())-slices.Index(kinds, b.GetKind()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return chosen, nil
}

// clean takes out what only people and cert-manager read, and labels u as clusterctl does.
func clean(u *unstructured.Unstructured) {
	annotations := u.GetAnnotations()
	delete(annotations, "cert-manager.io/inject-ca-from")
	u.SetAnnotations(annotations)
	labels := u.GetLabels()
	labels[managed] = ""
	u.SetLabels(labels)
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(u.Object, "status")
	if u.GetKind() == "CustomResourceDefinition" {
		simplify(nested(u.Object, "spec"))
	}
}

// simplify leaves the version that is stored in the spec of a definition, without descriptions.
func simplify(spec map[string]any) {
	delete(spec, "conversion")
	versions, _ := spec["versions"].([]any)
	for _, v := range versions {
		if version, ok := v.(map[string]any); ok && version["storage"] == true {
			stripSchema(nested(version, "schema", "openAPIV3Schema"))
			spec["versions"] = []any{version}
		}
	}
}

// stripSchema removes the descriptions of a schema and of all below it. It knows where schemas
// stand: a property may itself be called "description".
func stripSchema(schema map[string]any) {
	delete(schema, "description")
	for key, value := range schema {
		switch key {
		case "properties", "patternProperties", "definitions":
			children, _ := value.(map[string]any)
			for _, child := range children {
				strip(child)
			}
		case "items", "additionalProperties", "additionalItems", "not":
			strip(value)
		case "allOf", "anyOf", "oneOf":
			alternatives, _ := value.([]any)
			for _, a := range alternatives {
				strip(a)
			}
		}
	}
}

// strip is stripSchema of what may be a schema, or only whether anything is allowed.
func strip(value any) {
	if schema, ok := value.(map[string]any); ok {
		stripSchema(schema)
	}
}

// nested returns a map within a map, nil where there is none.
func nested(m map[string]any, path ...string) map[string]any {
	for _, key := range path {
		m, _ = m[key].(map[string]any)
	}
	return m
}
