package kustomize

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
)

// root is the kustomization that a recipe asks to build: the one in its folder,
// or one generated from the manifests there, with the recipe's own fields
// merged on top.
type root struct {
	dir  string
	file string // name of the kustomization file, also where it is generated
	kust *types.Kustomization
	// generated says that the tree holds no such file.
	generated bool
}

// folderOf returns the io/fs name of the folder that a recipe names. A leading
// "./" or "/" is accepted, as the toolkit does.
func folderOf(p string) (string, error) {
	dir := path.Clean(strings.TrimLeft(p, "/"))
	if dir == ".." || strings.HasPrefix(dir, "../") {
		return "", &failure.Error{Op: "build", Kind: failure.Invalid, Object: fmt.Sprintf("path %q", p),
			Err: errors.New("the path leaves the repository"), Remedy: "set spec.path to a folder inside it"}
	}
	return dir, nil
}

// makeRoot finds or generates the kustomization that recipe asks for.
func makeRoot(r *reader, recipe build.Recipe) (*root, error) {
	dir, err := folderOf(recipe.Path)
	if err != nil {
		return nil, err
	}
	entries, err := r.list(dir)
	if err != nil {
		return nil, pathError(r, recipe.Path, dir, err)
	}
	rt, err := findRoot(r, dir, entries)
	if err != nil {
		return nil, err
	}
	if rt == nil {
		if rt, err = generate(r, dir, entries); err != nil {
			return nil, err
		}
	}
	if err := merge(r, rt, recipe); err != nil {
		return nil, err
	}
	return rt, nil
}

func pathError(r *reader, given, dir string, err error) error {
	e := &failure.Error{Op: "build", Kind: failure.NotFound, Object: fmt.Sprintf("path %q", given),
		Remedy: "correct spec.path or add the folder"}
	if errors.Is(err, fs.ErrNotExist) {
		e.Err = fmt.Errorf("the repository has no such folder: %w", fs.ErrNotExist)
		return e
	}
	if info, serr := r.tree.Stat(dir); serr == nil && !info.IsDir() {
		r.err = nil
		e.Kind, e.Err = failure.Invalid, errors.New("it is a file, not a folder")
		return e
	}
	return err
}

// findRoot returns the kustomization that is in dir, and nil where there is
// none. Where two are, that is an error, as it is for kustomize.
func findRoot(r *reader, dir string, entries []fs.DirEntry) (*root, error) {
	found := kustomizationFiles(entries)
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, invalid(dir, "kustomization", fmt.Errorf("the folder holds both %s", strings.Join(found, " and ")), "keep one of them")
	}
	rt := &root{dir: dir, file: path.Join(dir, found[0])}
	data, err := r.file(rt.file)
	if err != nil {
		if errors.Is(err, errIsFolder) {
			return nil, nil
		}
		return nil, err
	}
	rt.kust = emptyKustomization()
	// Not strict, unlike nested kustomizations: the toolkit has never been, and
	// repositories rely on it.
	if err := yaml.Unmarshal(data, rt.kust); err != nil {
		return nil, invalidYAML(rt.file, err)
	}
	if len(rt.kust.Resources) == 0 {
		// Without resources kustomize could call the file empty. This is the
		// toolkit's way round it, visible in the output as origin annotations.
		rt.kust.BuildMetadata = []string{types.OriginAnnotations}
	}
	return rt, nil
}

func emptyKustomization() *types.Kustomization {
	return &types.Kustomization{TypeMeta: types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind}}
}

// kustomizationFiles returns the names under which kustomize would find a
// kustomization among entries.
func kustomizationFiles(entries []fs.DirEntry) []string {
	var found []string
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name && !e.IsDir() })
		if i >= 0 {
			found = append(found, name)
		}
	}
	return found
}

// generate makes the kustomization of a folder that has none: every manifest
// in it and below. A folder below that has a kustomization is taken whole.
// Symbolic links are left out: an artifact of the toolkit never holds any.
func generate(r *reader, dir string, entries []fs.DirEntry) (*root, error) {
	rt := &root{dir: dir, file: path.Join(dir, konfig.DefaultKustomizationFileName()), kust: emptyKustomization(), generated: true}
	var walk func(rel string, entries []fs.DirEntry) error
	walk = func(rel string, entries []fs.DirEntry) error {
		for _, e := range entries {
			name := path.Join(rel, e.Name())
			switch {
			case e.IsDir():
				below, err := r.list(path.Join(dir, name))
				if err != nil {
					return err
				}
				if len(kustomizationFiles(below)) > 0 {
					rt.kust.Resources = append(rt.kust.Resources, "./"+name)
				} else if err := walk(name, below); err != nil {
					return err
				}
			case e.Type()&fs.ModeSymlink == 0 && isManifest(name):
				rt.kust.Resources = append(rt.kust.Resources, "./"+name)
			}
		}
		return nil
	}
	if err := walk("", entries); err != nil {
		return nil, err
	}
	return rt, nil
}

func isManifest(name string) bool {
	ext := path.Ext(name)
	return ext == ".yaml" || ext == ".yml"
}

// merge puts the recipe's fields on top of the kustomization.
func merge(r *reader, rt *root, recipe build.Recipe) error {
	k := rt.kust
	k.Namespace = orElse(recipe.TargetNamespace, k.Namespace)
	k.NamePrefix = orElse(recipe.NamePrefix, k.NamePrefix)
	k.NameSuffix = orElse(recipe.NameSuffix, k.NameSuffix)
	for _, p := range recipe.Patches {
		k.Patches = append(k.Patches, types.Patch{Patch: p.Patch, Target: selectorOf(p.Target)})
	}
	for _, c := range recipe.Components {
		if isRemote(c) || path.IsAbs(c) {
			return &failure.Error{Op: "build", Kind: failure.Invalid, Object: fmt.Sprintf("component %q", c),
				Err: errors.New("it must be a path relative to spec.path"), Remedy: "correct spec.components"}
		}
		if recipe.IgnoreMissingComponents {
			at, err := within(rt.dir, c)
			if err != nil {
				return invalid("spec.components", c, err, "correct the path")
			}
			what, err := r.look(at)
			if err != nil {
				return err
			}
			if what == nothing {
				continue
			}
		}
		k.Components = append(k.Components, c)
	}
	for _, image := range recipe.Images {
		mergeImage(k, image)
	}
	if len(recipe.BuildMetadata) > 0 {
		k.BuildMetadata = nil
		for _, o := range recipe.BuildMetadata {
			k.BuildMetadata = append(k.BuildMetadata, string(o))
		}
	}
	return nil
}

// mergeImage overrides field by field what the kustomization says about the
// image. Tag and digest both choose the version, so setting one clears the other.
func mergeImage(k *types.Kustomization, image fluxkustomize.Image) {
	i := slices.IndexFunc(k.Images, func(have types.Image) bool { return have.Name == image.Name })
	if i < 0 {
		k.Images = append(k.Images, types.Image{Name: image.Name, NewName: image.NewName, NewTag: image.NewTag, Digest: image.Digest})
		return
	}
	have := &k.Images[i]
	have.NewName = orElse(image.NewName, have.NewName)
	if image.NewTag != "" || image.Digest != "" {
		have.NewTag, have.Digest = image.NewTag, image.Digest
	}
}

func selectorOf(s *fluxkustomize.Selector) *types.Selector {
	if s == nil {
		return nil
	}
	out := &types.Selector{LabelSelector: s.LabelSelector, AnnotationSelector: s.AnnotationSelector}
	out.Group, out.Version, out.Kind = s.Group, s.Version, s.Kind
	out.Name, out.Namespace = s.Name, s.Namespace
	return out
}

func orElse(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// over returns base with all of top laid over it.
func over(base, top map[string]string) map[string]string {
	if base == nil {
		base = make(map[string]string, len(top))
	}
	maps.Copy(base, top)
	return base
}
