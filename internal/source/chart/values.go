package chart

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Composes reports whether a list of values files asks for other values than the chart's own.
func Composes(valuesFiles []string) bool {
	return len(valuesFiles) > 1 || len(valuesFiles) == 1 && path.Clean(valuesFiles[0]) != valuesFile
}

// SetValues makes the chart's values of a list of files, each of which overrides those before it, and
// returns those that there are. One that is missing is an error of kind failure.NotFound, unless missing
// ones are to be ignored.
func SetValues(files map[string][]byte, read func(name string) ([]byte, error), names []string, ignoreMissing bool) ([]string, error) {
	merged := map[string]any{}
	used := make([]string, 0, len(names))
	for _, name := range names {
		text, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			if ignoreMissing {
				continue
			}
			return nil, &failure.Error{Op: "merge values files", Object: name, Kind: failure.NotFound, Err: errors.New("there is no such file"),
				Remedy: "correct spec.valuesFiles, or set spec.ignoreMissingValuesFiles"}
		}
		if err != nil {
			return nil, err
		}
		values := map[string]any{}
		if err := yaml.Unmarshal(text, &values); err != nil {
			return nil, &failure.Error{Op: "merge values files", Object: name, Kind: failure.Invalid, Err: err, Remedy: "correct the file"}
		}
		merge(merged, values)
		used = append(used, name)
	}
	var text []byte
	if len(merged) > 0 {
		var err error
		if text, err = yaml.Marshal(merged); err != nil {
			return nil, fmt.Errorf("merge values files: %w", err)
		}
	}
	files[valuesFile] = text
	return used, nil
}

// FileIn reads files of a chart by their path in it.
func FileIn(files map[string][]byte) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		data, ok := files[path.Clean(name)]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return data, nil
	}
}

// merge puts over into base; mappings are merged and everything else is replaced.
func merge(base, over map[string]any) {
	for k, v := range over {
		from, isMap := v.(map[string]any)
		into, wasMap := base[k].(map[string]any)
		if isMap && wasMap {
			merge(into, from)
			continue
		}
		base[k] = v
	}
}
