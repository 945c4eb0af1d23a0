package helm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	release "helm.sh/helm/v4/pkg/release/v1"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// compose sorts what files hold into hooks and the manifest of everything else.
func compose(files map[string]string) ([]*release.Hook, string, error) {
	hooks, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, "", err
	}
	var b strings.Builder
	for _, m := range manifests {
		b.WriteString("---\n# Source: " + m.Name + "\n" + m.Content + "\n")
	}
	return hooks, b.String(), nil
}

// Objects returns the objects of a manifest as a release keeps it, or of one hook, in
// their order. Items of lists come in the place of the list. Numbers are int64 or float64. Errors
// are of kind Invalid and name the file that the manifest says an object is from: for what is no object, and
// for one that is there twice.
func Objects(manifest string) ([]*unstructured.Unstructured, error) {
	r := &reading{from: map[object.ID]string{}}
	for _, doc := range splitDocuments(manifest) {
		if err := r.document(doc); err != nil {
			return nil, err
		}
	}
	return r.objects, nil
}

// byNumber compares the keys that Helm gives documents, which end in their number.
func byNumber(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// reading is the objects of a manifest, with the file that each comes from.
type reading struct {
	objects []*unstructured.Unstructured
	from    map[object.ID]string
}

func (r *reading) document(doc string) error {
	file := sourceOf(doc)
	fail := func(err error) error {
		return &failure.Error{Op: "read the manifest of", Kind: failure.Invalid, Object: file, Err: err, Remedy: "correct the template"}
	}
	data, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		return fail(errors.New(shortened(err.Error())))
	}
	var content any
	if err := json.Unmarshal(data, &content); err != nil {
		return fail(err)
	}
	if content == nil {
		return nil // comments
	}
	fields, ok := content.(map[string]any)
	if !ok {
		return fail(errors.New("it holds something that is no object"))
	}
	if len(fields) == 0 {
		return nil
	}
	if err := r.add(file, fields); err != nil {
		return fail(err)
	}
	return nil
}

func (r *reading) add(file string, fields map[string]any) error {
	u := &unstructured.Unstructured{Object: fields}
	if items, ok := fields["items"].([]any); ok && strings.HasSuffix(u.GetKind(), "List") {
		for _, item := range items {
			fields, ok := item.(map[string]any)
			if !ok {
				return fmt.Errorf("an item of its %s is no object", u.GetKind())
			}
			if err := r.add(file, fields); err != nil {
				return err
			}
		}
		return nil
	}
	for _, field := range []struct{ name, value string }{
		{"apiVersion", u.GetAPIVersion()}, {"kind", u.GetKind()}, {"metadata.name", u.GetName()},
	} {
		if field.value == "" {
			return fmt.Errorf("an object has no %s", field.name)
		}
	}
	id := object.IDOf(u)
	if other, twice := r.from[id]; twice {
		if other == file {
			return fmt.Errorf("%s is there twice", id)
		}
		return fmt.Errorf("%s is there twice: it is in %s as well", id, other)
	}
	r.from[id] = file
	r.objects = append(r.objects, u)
	return nil
}

// sourceOf returns the file that the comment above a document names.
func sourceOf(doc string) string {
	for line := range strings.Lines(doc) {
		if name, ok := strings.CutPrefix(line, "# Source: "); ok {
			return strings.TrimSpace(name)
		}
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			break
		}
	}
	return "the manifest"
}

// definitions returns the objects in the crds folders, with the labels of the toolkit.
func (req Request) definitions(chart *chartv2.Chart) ([]*unstructured.Unstructured, error) {
	var b strings.Builder
	for _, crd := range chart.CRDObjects() {
		for _, doc := range splitDocuments(string(crd.File.Data)) {
			b.WriteString("---\n# Source: " + crd.Filename + "\n" + doc + "\n")
		}
	}
	objects, err := Objects(b.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.at(""), err)
	}
	for _, o := range objects {
		req.PostRender.label(o)
	}
	return objects, nil
}

// splitDocuments returns the documents of a YAML stream in their order.
func splitDocuments(text string) []string {
	docs := releaseutil.SplitManifests(text)
	keys := make([]string, 0, len(docs))
	for key := range docs {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, byNumber)
	for i, key := range keys {
		keys[i] = docs[key]
	}
	return keys
}
