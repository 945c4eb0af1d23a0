package kustomize

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// reference is a field of a kustomization that names a file.
type reference struct {
	field, path string
	// inline says that the field may hold its content instead of a path.
	inline bool
	// plugin says that the file configures a generator, a transformer or a
	// validator, which can name files itself.
	plugin bool
}

// references returns the fields of k that name files, apart from resources and
// components.
func references(k *types.Kustomization) []reference {
	var refs []reference
	add := func(field string, paths ...string) {
		for _, p := range paths {
			if p != "" {
				refs = append(refs, reference{field: field, path: p})
			}
		}
	}
	for i, p := range k.Patches {
		add(fmt.Sprintf("patches[%d].path", i), p.Path)
	}
	for i, p := range k.PatchesJson6902 { //nolint:staticcheck // deprecated, and in use
		add(fmt.Sprintf("patchesJson6902[%d].path", i), p.Path)
	}
	for i, p := range k.PatchesStrategicMerge { //nolint:staticcheck // deprecated, and in use
		refs = append(refs, reference{field: fmt.Sprintf("patchesStrategicMerge[%d]", i), path: string(p), inline: true})
	}
	for i, p := range k.Replacements {
		add(fmt.Sprintf("replacements[%d].path", i), p.Path)
	}
	for i, g := range k.ConfigMapGenerator {
		add(fmt.Sprintf("configMapGenerator[%d]", i), sources(g.KvPairSources)...)
	}
	for i, g := range k.SecretGenerator {
		add(fmt.Sprintf("secretGenerator[%d]", i), sources(g.KvPairSources)...)
	}
	add("openapi.path", k.OpenAPI["path"])
	add("crds", k.Crds...)
	add("configurations", k.Configurations...)
	plugins := func(field string, list []string) {
		for i, p := range list {
			refs = append(refs, reference{field: fmt.Sprintf("%s[%d]", field, i), path: p, inline: true, plugin: true})
		}
	}
	plugins("generators", k.Generators)
	plugins("transformers", k.Transformers)
	plugins("validators", k.Validators)
	return refs
}

// sources returns the files of a generator. An entry is a path, or a key, an
// equals sign and a path.
func sources(s types.KvPairSources) []string {
	var paths []string
	for _, f := range s.FileSources {
		if _, after, ok := strings.Cut(f, "="); ok {
			f = after
		}
		paths = append(paths, f)
	}
	paths = append(paths, s.EnvSources...)
	return append(paths, s.EnvSource)
}

// reference surveys one field that names a file.
func (s *survey) reference(at place, ref reference) error {
	if ref.inline && strings.Contains(ref.path, "\n") {
		if err := checkAliases([]byte(ref.path)); err != nil {
			return invalid(at.file, ref.field, err, "use fewer of them")
		}
		if ref.plugin {
			return s.plugins(at, at.file, []byte(ref.path))
		}
		return nil
	}
	name, err := s.local(at, ref.field, ref.path)
	if err != nil || name == "" {
		return err
	}
	what, err := s.r.look(name)
	switch {
	case err != nil:
		return err
	case what == nothing && ref.inline:
		return nil // kustomize tells whether it is meant inline
	case what == nothing:
		return missing(at, ref.field, ref.path)
	case !ref.plugin:
		return nil
	case what == folder:
		return s.nested(at, ref.field, ref.path, name)
	}
	data, err := s.r.file(name)
	if err != nil {
		return err
	}
	return s.plugins(at, name, data)
}

// plugins surveys the configuration of generators, transformers or validators
// for what would leave the tree or start a program.
func (s *survey) plugins(at place, name string, data []byte) error {
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		var config map[string]any
		if yaml.Unmarshal([]byte(doc), &config) != nil {
			continue // kustomize says what is wrong
		}
		if err := s.pluginPaths(place{dir: at.dir, file: name}, "", config); err != nil {
			return err
		}
	}
	return nil
}

// pluginPaths looks for paths in the fields under which the builtin plugins
// take them.
func (s *survey) pluginPaths(at place, field string, value any) error {
	switch value := value.(type) {
	case map[string]any:
		if value["kind"] == "HelmChartInflationGenerator" {
			return errHelm(at.file, "HelmChartInflationGenerator")
		}
		for _, k := range slices.Sorted(maps.Keys(value)) {
			if err := s.pluginPaths(at, k, value[k]); err != nil {
				return err
			}
		}
	case []any:
		for _, v := range value {
			if err := s.pluginPaths(at, field, v); err != nil {
				return err
			}
		}
	case string:
		switch field {
		case "files":
			if _, after, ok := strings.Cut(value, "="); ok {
				value = after
			}
		case "path", "paths", "env", "envs", "crds", "configurations", "resources", "bases", "components":
		default:
			return nil
		}
		if isRemote(value) {
			_, err := s.local(at, field, value)
			return err
		}
	}
	return nil
}
