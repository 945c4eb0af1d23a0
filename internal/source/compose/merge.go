package compose

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// merged returns a file with the YAML of over laid over that of old.
func merged(old, over *node, at string) (*node, error) {
	if old.isDir() {
		return nil, invalid(at, errors.New("it is a folder, and YAML is to be merged into it as a file"), "name the file in the destination")
	}
	base, err := old.values(at)
	if err != nil {
		return nil, err
	}
	top, err := over.values(over.path)
	if err != nil {
		return nil, err
	}
	data, err := yaml.Marshal(lay(base, top))
	if err != nil {
		return nil, invalid(at, err, "correct the files that are merged")
	}
	return file(data), nil
}

// values reads a file as YAML; documents after the first are laid over it.
func (n *node) values(name string) (map[string]any, error) {
	data := n.data
	if n.source != nil {
		var err error
		if data, err = n.source.Tree.ReadFile(n.path); err != nil {
			return nil, err
		}
	}
	values := map[string]any{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		next := map[string]any{}
		if err == nil {
			err = yaml.Unmarshal(doc, &next)
		}
		if err != nil {
			// The cause may quote the file, which is not ours to show.
			return nil, invalid(name, fmt.Errorf("it is to be merged and holds no YAML map"), "correct the file, or use the strategy Overwrite")
		}
		values = lay(values, next)
	}
}

// lay returns base with over laid over it.
func lay(base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for key, value := range over {
		above, isMap := value.(map[string]any)
		below, wasMap := out[key].(map[string]any)
		if isMap && wasMap {
			value = lay(below, above)
		}
		out[key] = value
	}
	return out
}
