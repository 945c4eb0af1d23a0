package legacy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"go.yaml.in/yaml/v3"
	kyaml "sigs.k8s.io/yaml"
)

// HelmOperatorOptions are what files do not say.
type HelmOperatorOptions struct {
	// Namespace is that of HelmReleases which name none and whose folder's
	// kustomization names none. Empty means that it is not known.
	Namespace string
	// Interval is written to what is made; the Helm Operator had it as an argument.
	Interval time.Duration
}

// operatorAPIs are the versions in which the Helm Operator's HelmRelease was ever served.
var operatorAPIs = []string{"helm.fluxcd.io/v1", "flux.weave.works/v1beta1"}

// HelmOperator rewrites the HelmReleases of the Helm Operator in the tree below dir.
// Nothing is written: see Write.
func HelmOperator(dir string, o HelmOperatorOptions) (*Result, error) {
	t, err := readTree(dir)
	if err != nil {
		return nil, err
	}
	for _, p := range t.paths() {
		if mentionsOperator(string(t.files[p])) {
			t.releasesOf(p, o)
		}
	}
	return t.result(), nil
}

func mentionsOperator(text string) bool {
	return strings.Contains(text, "helm.fluxcd.io") || strings.Contains(text, "flux.weave.works/v1beta1")
}

// releasesOf rewrites one file. A document that cannot be translated stays as it is.
func (t *tree) releasesOf(p string, o HelmOperatorOptions) {
	docs := split(p, t.files[p])
	sources := map[string]string{}
	for i, d := range docs {
		if !d.isOldRelease() {
			t.leftover(d)
			continue
		}
		r := &release{tree: t, document: d, options: o, namespace: t.namespaceOf(d, o), sources: sources, siblings: docs}
		if lines, ok := r.rewrite(); ok {
			docs[i].lines = lines
		}
	}
	t.after[p] = join(docs)
}

func (d *document) isOldRelease() bool {
	return slices.Contains(operatorAPIs, text(d.root, "apiVersion")) && text(d.root, "kind") == "HelmRelease"
}

// namespaceOf is where a HelmRelease will be, as far as can be told.
func (t *tree) namespaceOf(d *document, o HelmOperatorOptions) string {
	if ns := text(d.root, "metadata", "namespace"); ns != "" {
		return ns
	}
	if k := t.kustomizationOf(path.Dir(d.path)); k != "" {
		if ns := text(parseMapping(string(t.files[k])), "namespace"); ns != "" {
			return ns
		}
	}
	return o.Namespace
}

// leftover notes where else the Helm Operator is named.
func (t *tree) leftover(d *document) {
	for i, line := range d.lines {
		if code, _, _ := strings.Cut(line, "#"); !mentionsOperator(code) {
			continue
		}
		switch {
		case text(d.root, "kind") == "CustomResourceDefinition":
			t.note(d.path, d.first+i, "the definition of the Helm Operator's kind: remove it once its objects are gone from the cluster")
			return
		case text(d.root, "kind") == "List":
			t.note(d.path, d.first+i, "a HelmRelease in a List is not translated: make a document of its own of it, and run this again")
		default:
			t.note(d.path, d.first+i, "names the Helm Operator's API and is not translated: make it name helm.toolkit.fluxcd.io/v2, or remove it with the operator")
		}
	}
}

// release is one HelmRelease of the Helm Operator on its way.
type release struct {
	*tree
	*document
	options   HelmOperatorOptions
	namespace string
	// sources are those made for this file: names by namespace and address.
	sources map[string]string
	// siblings are the other documents of the file.
	siblings []*document
	// before are the documents that go in front of this one.
	before []string
	// partial is set for a patch: what is not there is not made up.
	partial bool
}

// name identifies the release in notes.
func (r *release) name() string { return text(r.root, "metadata", "name") }

// note records something about a node of the release, nil for the release as a whole.
func (r *release) note(n *yaml.Node, format string, args ...any) {
	r.noteAt(r.document, n, format, args...)
}

// rewrite returns the document's new lines; ok is false when it has to stay.
func (r *release) rewrite() (lines []string, ok bool) {
	r.unflow()
	spec := field(r.root, "spec")
	if spec.value == nil || spec.value.Kind != yaml.MappingNode {
		r.note(nil, "a HelmRelease without a spec cannot be translated")
		return nil, false
	}
	chart := at(spec.value, "chart")
	r.partial = text(chart, "repository") == "" && text(chart, "git") == ""
	edited := r.edit(spec.value)
	if err := check(edited); err != nil {
		r.note(spec.key, "could not be translated: %v; write it by hand", err)
		return nil, false
	}
	return slices.Concat(r.before, edited), true
}

// check reads the outcome as the API's own type: what does not fit is not written.
func check(lines []string) error {
	var hr helmv2.HelmRelease
	if err := kyaml.UnmarshalStrict([]byte(strings.Join(lines, "")), &hr); err != nil {
		return fmt.Errorf("the outcome is no HelmRelease: %w", err)
	}
	return nil
}

// unflow writes mappings of the document that stand on one line over several, since
// fields are replaced line by line.
func (r *release) unflow() {
	flow := false
	for _, m := range []*yaml.Node{r.root, at(r.root, "metadata"), at(r.root, "spec")} {
		if m != nil && m.Style&yaml.FlowStyle != 0 {
			m.Style &^= yaml.FlowStyle
			flow = true
		}
	}
	if flow {
		r.lines = render(1, r.root)
		r.parse()
	}
}

// edit replaces line by line what has to change.
func (r *release) edit(spec *yaml.Node) []string {
	var out []string
	done := 0
	keep := func(to int) { out = append(out, r.lines[done:to]...); done = to }
	for i := 0; i+1 < len(r.root.Content); i += 2 {
		key, value := r.root.Content[i], r.root.Content[i+1]
		from, at, to := r.span(r.root, i/2, len(r.lines))
		switch key.Value {
		case "apiVersion":
			keep(at)
			out = append(out, strings.Replace(r.lines[at], value.Value, helmv2.GroupVersion.String(), 1))
			done = at + 1
		case "metadata":
			if drop, end, ok := r.migrateAnnotation(to); ok {
				keep(drop)
				done = end
			}
		case "status":
			keep(from)
			done = to
		case "spec":
			keep(at + 1)
			out = append(out, r.editSpec(spec, to)...)
			done = to
		}
	}
	keep(len(r.lines))
	return out
}

// migrateAnnotation finds the annotation that had the Helm Operator convert a release
// of Helm 2, with the field around it when there is nothing else in it.
func (r *release) migrateAnnotation(limit int) (from, to int, ok bool) {
	metadata := at(r.root, "metadata")
	annotations := at(metadata, "annotations")
	if annotations == nil || field(annotations, "helm.fluxcd.io/migrate").key == nil || annotations.Style&yaml.FlowStyle != 0 {
		return 0, 0, false
	}
	i := index(metadata, "annotations")
	_, _, end := r.span(metadata, i, limit)
	if len(annotations.Content) == 2 {
		from, _, _ = r.span(metadata, i, limit)
		return from, end, true
	}
	from, _, to = r.span(annotations, index(annotations, "helm.fluxcd.io/migrate"), end)
	return from, to, true
}
