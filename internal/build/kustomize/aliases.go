package kustomize

import (
	"bytes"
	"errors"
	"math"

	yaml "go.yaml.in/yaml/v3"
)

// maxNodes is how many values a YAML file may stand for once its aliases are
// replaced by what they name. kustomize replaces them without a limit, so that a
// few lines could take all memory.
const maxNodes = 1_000_000

var errAliases = errors.New("its aliases stand for more than a million values")

// checkAliases fails for YAML whose aliases expand beyond maxNodes. Data that is
// no YAML passes.
func checkAliases(data []byte) error {
	if bytes.IndexByte(data, '*') < 0 || bytes.IndexByte(data, '&') < 0 {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return nil //nolint:nilerr // the end, or no YAML, of which kustomize says more
		}
		if expanded(&doc, map[*yaml.Node]int{}) > maxNodes {
			return errAliases
		}
	}
}

// expanded counts the nodes below n with aliases replaced. It looks at each
// anchor once; an alias within what it names counts as endless.
func expanded(n *yaml.Node, known map[*yaml.Node]int) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if count, ok := known[n]; ok {
		return count
	}
	if n.Anchor != "" {
		known[n] = math.MaxInt32 // until it is counted
	}
	count := 1
	for _, c := range n.Content {
		count = min(count+expanded(c, known), math.MaxInt32)
	}
	if n.Anchor != "" {
		known[n] = count
	}
	return count
}
