package kustomize

import (
	"fmt"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// valueOf converts a YAML node into what its JSON form would decode to. flow
// says that the node is in a collection in flow style.
func valueOf(n *yaml.Node, flow bool) (any, error) {
	if n.Anchor != "" {
		return nil, errNotDirect
	}
	switch n.Kind {
	case yaml.MappingNode:
		return mappingOf(n, flow)
	case yaml.SequenceNode:
		return sequenceOf(n, flow)
	case yaml.ScalarNode:
		return scalarOf(n, flow)
	default:
		return nil, errNotDirect
	}
}

func mappingOf(n *yaml.Node, flow bool) (map[string]any, error) {
	if n.Anchor != "" {
		return nil, errNotDirect
	}
	flow = flow || n.Style&yaml.FlowStyle != 0
	m := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || tagOf(key) != "!!str" || key.Anchor != "" {
			return nil, errNotDirect
		}
		v, err := valueOf(n.Content[i+1], flow)
		if err != nil {
			return nil, err
		}
		if _, twice := m[key.Value]; twice {
			return nil, &duplicateKeyError{key: key.Value, line: key.Line}
		}
		m[common(key.Value)] = v
	}
	return m, plainTag(n, "!!map")
}

func sequenceOf(n *yaml.Node, flow bool) ([]any, error) {
	flow = flow || n.Style&yaml.FlowStyle != 0
	list := make([]any, len(n.Content))
	for i, c := range n.Content {
		v, err := valueOf(c, flow)
		if err != nil {
			return nil, err
		}
		list[i] = v
	}
	return list, plainTag(n, "!!seq")
}

func plainTag(n *yaml.Node, tag string) error {
	if n.Tag != tag && n.Tag != "" || n.Style&yaml.TaggedStyle != 0 {
		return errNotDirect
	}
	return nil
}

// tagOf returns the type of a scalar. The parser sets it; nodes that kustomize
// made itself may have none.
func tagOf(n *yaml.Node) string {
	if n.Tag == "" {
		return n.ShortTag()
	}
	return n.Tag
}

func scalarOf(n *yaml.Node, flow bool) (any, error) {
	tag := tagOf(n)
	if n.Style&yaml.TaggedStyle != 0 || n.Style != 0 && tag != "!!str" {
		return nil, errNotDirect
	}
	switch tag {
	case "!!str":
		if !keepsText(n) {
			return nil, errNotDirect
		}
		return n.Value, nil
	case "!!null":
		if isNull(n.Value, flow) {
			return nil, nil
		}
	case "!!bool":
		if n.Value == "true" || n.Value == "false" {
			return n.Value == "true", nil
		}
	case "!!int":
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && strconv.FormatInt(i, 10) == n.Value {
			return i, nil
		}
	case "!!float":
		return fractionOf(n.Value)
	}
	return nil, errNotDirect // other forms are rare and left to kustomize
}

// isNull reports whether s is null once kustomize printed it: in flow style it
// makes an empty string of what is left out.
func isNull(s string, flow bool) bool { return s == "null" || s == "~" || s == "" && !flow }

// keepsText reports whether kustomize prints the text of n in a way that means
// the same. It adds line ends to some folded scalars, and it prints some with a
// tab at the start in a way that it cannot read.
func keepsText(n *yaml.Node) bool {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && strings.HasPrefix(n.Value, "\t") {
		return false
	}
	if n.Style&yaml.FoldedStyle == 0 {
		return true
	}
	text := strings.TrimSuffix(n.Value, "\n")
	return text != "" && !strings.ContainsAny(text, "\n\u0085\u2028\u2029")
}

// fractionOf reads plain decimal fractions. JSON has one kind of number, so that
// a whole one is an integer.
func fractionOf(s string) (any, error) {
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || !simpleFloat(s):
		return nil, errNotDirect
	case f == float64(int64(f)):
		return int64(f), nil
	}
	return f, nil
}

// simpleFloat reports whether s is a short plain decimal such as 0.25.
func simpleFloat(s string) bool {
	whole, frac, ok := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	return ok && len(s) <= 15 && digits(whole) && digits(frac)
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// duplicateKeyError says that a mapping gives one key twice.
type duplicateKeyError struct {
	key  string
	line int
}

func (d *duplicateKeyError) Error() string {
	return fmt.Sprintf("yaml: line %d: the key %q is given twice", d.line, d.key)
}

// common returns s, as one and the same string for the keys that every object
// has, so that thousands of objects do not hold thousands of copies.
func common(s string) string {
	switch s {
	case "apiVersion":
		return "apiVersion"
	case "kind":
		return "kind"
	case "metadata":
		return "metadata"
	case "name":
		return "name"
	case "namespace":
		return "namespace"
	case "labels":
		return "labels"
	case "annotations":
		return "annotations"
	case "spec":
		return "spec"
	case "data":
		return "data"
	case "template":
		return "template"
	case "selector":
		return "selector"
	}
	return s
}
