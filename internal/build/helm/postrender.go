package helm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/kustomize/kyaml/kio"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/failure"
)

// PostRender is what is done to what the templates made. The zero value does nothing.
type PostRender struct {
	// Renderers are applied in their order.
	Renderers []helmv2.PostRenderer
	// Strategy says whether hooks are sent through them; empty means combined.
	Strategy helmv2.PostRenderStrategy
	// CommonMetadata is set on every object after that; it may be nil.
	CommonMetadata *helmv2.CommonMetadata
	// Origin names the HelmRelease whose labels every object gets at the end; none where
	// it is empty.
	Origin types.NamespacedName
}

// PostRenderOf returns what a HelmRelease asks for.
func PostRenderOf(hr *helmv2.HelmRelease) PostRender {
	return PostRender{
		Renderers: hr.Spec.PostRenderers, Strategy: hr.Spec.PostRenderStrategy, CommonMetadata: hr.Spec.CommonMetadata,
		Origin: types.NamespacedName{Namespace: hr.Namespace, Name: hr.Name},
	}
}

// PostRenderersDigest returns what the toolkit keeps in
// status.observedPostRenderersDigest.
func PostRenderersDigest(renderers []helmv2.PostRenderer) string {
	if renderers == nil {
		return ""
	}
	return digestOfJSON(renderers)
}

// CommonMetadataDigest returns what the toolkit keeps in
// status.observedCommonMetadataDigest.
func CommonMetadataDigest(m *helmv2.CommonMetadata) string {
	if m == nil {
		return ""
	}
	return digestOfJSON(m)
}

// digestOfJSON encodes types that are made of strings.
func digestOfJSON(value any) string {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(value); err != nil {
		panic(err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// labels are those of the origin.
func (p PostRender) labels() map[string]string {
	if p.Origin.Name == "" {
		return nil
	}
	return map[string]string{
		helmv2.GroupVersion.Group + "/name":      p.Origin.Name,
		helmv2.GroupVersion.Group + "/namespace": p.Origin.Namespace,
	}
}

// label sets the labels of the origin on an object.
func (p PostRender) label(u *unstructured.Unstructured) {
	own := p.labels()
	if own == nil {
		return
	}
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, own)
	u.SetLabels(labels)
}

func (p PostRender) none() bool {
	return len(p.Renderers) == 0 && p.CommonMetadata == nil && p.Origin.Name == ""
}

// run does it to a stream of documents.
func (p PostRender) run(ctx context.Context, stream []byte) ([]byte, error) {
	var err error
	for i, r := range p.Renderers {
		if r.Kustomize == nil {
			continue
		}
		if stream, err = kustomize.Patch(ctx, stream, r.Kustomize.Patches, r.Kustomize.Images); err != nil {
			return nil, fmt.Errorf("spec.postRenderers[%d]: %w", i, err)
		}
	}
	if m := p.CommonMetadata; m != nil && (m.Labels != nil || m.Annotations != nil) {
		if stream, err = kustomize.SetMetadata(ctx, stream, m.Labels, m.Annotations); err != nil {
			return nil, fmt.Errorf("spec.commonMetadata: %w", err)
		}
	}
	if own := p.labels(); own != nil {
		if stream, err = kustomize.SetMetadata(ctx, stream, own, nil); err != nil {
			return nil, fmt.Errorf("set the labels: %w", err)
		}
	}
	return stream, nil
}

// postRender does what is asked to the files that the templates made, in the way of
// Helm's own post rendering: what is in the files afterwards is, to the letter, what Helm would
// keep.
func (req Request) postRender(ctx context.Context, files map[string]string) (map[string]string, error) {
	p := req.PostRender
	if p.none() {
		return files, nil
	}
	fail := func(err error) (map[string]string, error) {
		if failure.KindOf(err) == failure.Timeout {
			return nil, err
		}
		return nil, req.invalid("", fmt.Errorf("post rendering: %w", err), "correct the post renderers, or the template")
	}
	if p.Strategy == "" || p.Strategy == helmv2.PostRenderStrategyCombined {
		out, err := p.group(ctx, files, "")
		if err != nil {
			return fail(err)
		}
		return out, nil
	}
	hooks, manifests, err := apart(files)
	if err != nil {
		return nil, req.explainYAML(err)
	}
	if p.Strategy == helmv2.PostRenderStrategySeparate && len(hooks) > 0 {
		if hooks, err = p.group(ctx, hooks, "hooks"); err != nil {
			return fail(err)
		}
	}
	if len(manifests) > 0 {
		if manifests, err = p.group(ctx, manifests, "manifests"); err != nil {
			return fail(err)
		}
	}
	for name, content := range manifests {
		appendDocument(hooks, name, content)
	}
	return hooks, nil
}

// apart returns the hooks and everything else, by the file that they come from.
func apart(files map[string]string) (hooks, manifests map[string]string, err error) {
	sortedHooks, sortedManifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return nil, nil, err
	}
	hooks, manifests = map[string]string{}, map[string]string{}
	for _, h := range sortedHooks {
		appendDocument(hooks, h.Path, h.Manifest)
	}
	for _, m := range sortedManifests {
		appendDocument(manifests, m.Name, m.Content)
	}
	return hooks, manifests, nil
}

func appendDocument(files map[string]string, name, content string) {
	if before, ok := files[name]; ok {
		content = before + "\n---\n" + content
	}
	files[name] = content
}

// fileAnnotation is where Helm keeps the file of an object while it is post rendered.
const fileAnnotation = "postrenderer.helm.sh/postrender-filename"

// group sends files through the renderers as one stream. made names the group in the
// names of files that renderers add.
func (p PostRender) group(ctx context.Context, files map[string]string, made string) (map[string]string, error) {
	if only, ok := p.metadataOnly(); ok {
		if out, ok := only.set(files); ok {
			return out, nil
		}
	}
	out, err := p.through(ctx, files, made)
	if err == nil {
		return out, nil
	}
	if fault := faultIn(files); fault != nil {
		return nil, fault
	}
	return nil, err
}

// through sends files through kustomize, however much that is.
func (p PostRender) through(ctx context.Context, files map[string]string, made string) (map[string]string, error) {
	stream, err := merged(files)
	if err != nil {
		return nil, err
	}
	out, err := p.run(ctx, []byte(stream))
	if err != nil {
		return nil, err
	}
	return split(string(out), made)
}

// merged returns the documents of all files in one stream, each with its file in an
// annotation.
func merged(files map[string]string) (string, error) {
	var nodes []*kyaml.RNode
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(path.Base(name), "_") {
			continue
		}
		for _, doc := range splitDocuments(files[name]) {
			parsed, err := kio.ParseAll(doc)
			if err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			for _, node := range parsed {
				if err := node.PipeE(kyaml.SetAnnotation(fileAnnotation, name)); err != nil {
					return "", fmt.Errorf("%s: %w", name, err)
				}
				nodes = append(nodes, node)
			}
		}
	}
	return kio.StringAll(nodes)
}

// split returns the documents of a stream by the file that their annotation names.
func split(stream, made string) (map[string]string, error) {
	nodes, err := kio.ParseAll(stream)
	if err != nil {
		return nil, err
	}
	if made != "" {
		made += "-"
	}
	byFile := map[string][]*kyaml.RNode{}
	for i, node := range nodes {
		meta, err := node.GetMeta()
		if err != nil {
			return nil, err
		}
		name := meta.Annotations[fileAnnotation]
		if name == "" {
			name = fmt.Sprintf("generated-by-postrender-%s%d.yaml", made, i)
		}
		if err := node.PipeE(kyaml.ClearAnnotation(fileAnnotation)); err != nil {
			return nil, err
		}
		byFile[name] = append(byFile[name], node)
	}
	files := make(map[string]string, len(byFile))
	for name, nodes := range byFile {
		if files[name], err = kio.StringAll(nodes); err != nil {
			return nil, err
		}
	}
	return files, nil
}
