package kustomize

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	annotationsfilter "sigs.k8s.io/kustomize/api/filters/annotations"
	labelsfilter "sigs.k8s.io/kustomize/api/filters/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// streamFile is the name of a stream in the kustomization that patches it.
const streamFile = "manifest.yaml"

// Patch applies patches and images to a stream of YAML documents, as a kustomization
// with the stream as its only resource would, and returns the stream that it makes.
// Nothing else is read. An error is of one line.
func Patch(ctx context.Context, stream []byte, patches []kustomize.Patch, images []kustomize.Image) ([]byte, error) {
	k := types.Kustomization{
		TypeMeta:  types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind},
		Resources: []string{streamFile},
	}
	for _, i := range images {
		k.Images = append(k.Images, types.Image{Name: i.Name, NewName: i.NewName, NewTag: i.NewTag, Digest: i.Digest})
	}
	for _, p := range patches {
		k.Patches = append(k.Patches, types.Patch{Patch: p.Patch, Target: selectorOf(p.Target)})
	}
	manifest, err := yaml.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("write the kustomization: %w", err)
	}
	files := filesys.MakeFsInMemory()
	if err := errors.Join(files.WriteFile(streamFile, stream), files.WriteFile("kustomization.yaml", manifest)); err != nil {
		return nil, fmt.Errorf("write the kustomization: %w", err)
	}
	return inGate(ctx, func() (resmap.ResMap, error) {
		return krusty.MakeKustomizer(&krusty.Options{
			LoadRestrictions: types.LoadRestrictionsRootOnly,
			PluginConfig:     types.DisabledPluginConfig(),
		}).Run(files, ".")
	})
}

// SetMetadata sets labels and annotations on every object of a stream of YAML documents
// and returns the stream as kustomize writes it.
func SetMetadata(ctx context.Context, stream []byte, labels, annotations map[string]string) ([]byte, error) {
	return inGate(ctx, func() (resmap.ResMap, error) {
		m, err := resmap.NewFactory(provider.NewDefaultDepProvider().GetResourceFactory()).NewResMapFromBytes(stream)
		if err != nil {
			return nil, err
		}
		if labels != nil {
			err = m.ApplyFilter(labelsfilter.Filter{
				Labels: labels, FsSlice: types.FsSlice{{Path: "metadata/labels", CreateIfNotPresent: true}},
			})
		}
		if err == nil && annotations != nil {
			err = m.ApplyFilter(annotationsfilter.Filter{
				Annotations: annotations, FsSlice: types.FsSlice{{Path: "metadata/annotations", CreateIfNotPresent: true}},
			})
		}
		return m, err
	})
}

// inGate runs what uses kustomize's package variables, and returns what it made as YAML.
func inGate(ctx context.Context, run func() (resmap.ResMap, error)) (stream []byte, err error) {
	leave, err := enter(ctx, false)
	if err != nil {
		return nil, err
	}
	defer leave()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("kustomize could not make sense of an object: %v", p)
		}
	}()
	m, err := run()
	if err != nil {
		return nil, errors.New(withoutQuotations(err.Error()))
	}
	return m.AsYaml()
}

// Plain returns the object in a YAML document, as kustomize understands it, and whether
// that is all there is to it: false for documents that kustomize would treat in a way of
// its own (lists, anchors, its own annotations). The object is nil where there is none. An
// error names the place in the document.
func Plain(name string, doc []byte) (object map[string]any, plain bool, err error) {
	err = decode(name, doc, func(_ int, u *unstructured.Unstructured) error {
		if object != nil {
			return errNotDirect
		}
		object = u.Object
		return nil
	})
	if errors.Is(err, errNotDirect) {
		return nil, false, nil
	}
	return object, err == nil, err
}
