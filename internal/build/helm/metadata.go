package helm

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	yamlv2 "go.yaml.in/yaml/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/kyaml/kio"

	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// metadata is what is set on every object where nothing else is asked for, as for most
// releases.
type metadata struct{ labels, annotations map[string]string }

// metadataOnly returns what is to be set, and whether that is all there is to be done.
func (p PostRender) metadataOnly() (metadata, bool) {
	for _, r := range p.Renderers {
		if r.Kustomize != nil {
			return metadata{}, false
		}
	}
	m := metadata{labels: map[string]string{}, annotations: map[string]string{}}
	if p.CommonMetadata != nil {
		maps.Copy(m.labels, p.CommonMetadata.Labels)
		maps.Copy(m.annotations, p.CommonMetadata.Annotations)
	}
	maps.Copy(m.labels, p.labels())
	return m, len(m.labels)+len(m.annotations) > 0
}

// set does what sending the files through kustomize would, to the letter, where their
// objects are plain, and each of them once: kustomize compares every object with every
// other. Where it reports false, kustomize must do it.
func (m metadata) set(files map[string]string) (map[string]string, bool) {
	out := make(map[string]string, len(files))
	seen := map[string]struct{}{}
	for name, content := range files {
		if strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		var docs []string
		for _, doc := range splitDocuments(content) {
			fields, plain, err := kustomize.Plain(name, []byte(doc))
			if err != nil || !plain {
				return nil, false
			}
			if fields == nil {
				continue // comments
			}
			u := &unstructured.Unstructured{Object: fields}
			id := idInStream(u)
			if _, twice := seen[id]; twice {
				return nil, false
			}
			seen[id] = struct{}{}
			m.on(u)
			text, ok := written(fields)
			if !ok {
				return nil, false
			}
			docs = append(docs, text)
		}
		if len(docs) > 0 {
			out[name] = strings.Join(docs, "---\n")
		}
	}
	return out, true
}

// idInStream is what kustomize tells objects apart by.
func idInStream(u *unstructured.Unstructured) string {
	namespace := u.GetNamespace()
	if namespace == "" {
		namespace = "default"
	}
	return strings.Join([]string{u.GetAPIVersion(), u.GetKind(), namespace, u.GetName()}, "|")
}

// faultIn says what kustomize cannot make sense of in files, in clearer words than its
// own: what is no object, and an object that is there twice. It is nil where it is
// something else.
func faultIn(files map[string]string) error {
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, doc := range splitDocuments(files[name]) {
			fields, plain, err := kustomize.Plain(name, []byte(doc))
			var fault *failure.Error
			if errors.As(err, &fault) {
				return fmt.Errorf("what %s makes: %w", name, fault.Err)
			}
			if err != nil || !plain || fields == nil {
				continue
			}
			u := &unstructured.Unstructured{Object: fields}
			id := object.IDOf(u)
			other, twice := seen[idInStream(u)]
			if twice {
				return fmt.Errorf("%s is in %s and in %s: where one is a hook, set spec.postRenderStrategy to separate or nohooks", id, other, name)
			}
			seen[idInStream(u)] = name
		}
	}
	return nil
}

func (m metadata) on(u *unstructured.Unstructured) {
	if len(m.labels) > 0 {
		labels := u.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, m.labels)
		u.SetLabels(labels)
	}
	if len(m.annotations) > 0 {
		annotations := u.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		maps.Copy(annotations, m.annotations)
		u.SetAnnotations(annotations)
	}
}

// written returns an object in the form in which one ends up that kustomize wrote and
// Helm read and wrote again.
func written(fields map[string]any) (string, bool) {
	if !wholeNumbers(fields) {
		return "", false
	}
	text, err := yamlv2.Marshal(fields)
	if err != nil {
		return "", false
	}
	nodes, err := kio.ParseAll(string(text))
	if err != nil {
		return "", false
	}
	again, err := kio.StringAll(nodes)
	return again, err == nil
}

// wholeNumbers makes integers of the numbers that JSON writes as such, and reports false
// where the form of a number is for the libraries to say.
func wholeNumbers(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		for k, v := range value {
			var ok bool
			if value[k], ok = whole(v); !ok {
				return false
			}
		}
	case []any:
		for i, v := range value {
			var ok bool
			if value[i], ok = whole(v); !ok {
				return false
			}
		}
	}
	return true
}

func whole(value any) (any, bool) {
	f, ok := value.(float64)
	switch {
	case !ok:
		return value, wholeNumbers(value)
	case f == math.Trunc(f):
		return int64(f), math.Abs(f) < 1<<53
	default:
		return f, math.Abs(f) >= 1e-4 && math.Abs(f) < 1<<20
	}
}
