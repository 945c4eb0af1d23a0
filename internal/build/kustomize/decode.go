package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// decode reads the objects of a manifest in the way that kustomize does and
// hands each to emit, with the line on which it starts. It returns errNotDirect
// for whatever kustomize would treat in a way of its own: lists, anchors,
// local-only objects, annotations of kustomize, values with unusual tags.
func decode(name string, data []byte, emit func(line int, u *unstructured.Unstructured) error) error {
	text := data
	if bytes.Contains(text, []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	for skipped := 0; len(text) > 0; {
		doc, rest, err := nextDocument(text)
		if err != nil {
			return invalid(name, "", err, "correct the file")
		}
		if err := decodeDocument(name, doc, skipped, emit); err != nil {
			return err
		}
		skipped += bytes.Count(text[:len(text)-len(rest)], []byte("\n"))
		text = rest
	}
	return nil
}

// nextDocument cuts the first document off text where kustomize would: after a
// line that starts with three dashes, other than the first.
func nextDocument(text []byte) (doc, rest []byte, err error) {
	at := 0
	for {
		i := bytes.Index(text[at:], []byte("\n---"))
		if i < 0 {
			return text, nil, nil
		}
		i += at
		end := bytes.IndexByte(text[i+1:], '\n')
		if end < 0 {
			return text, nil, nil
		}
		line := bytes.TrimSpace(text[i+len("\n---") : i+1+end])
		if len(line) > 0 && line[0] != '#' {
			return nil, nil, errors.New("invalid document separator: " + string(bytes.TrimSpace(text[i:i+1+end])))
		}
		return text[:i+1], text[i+1+end+1:], nil
	}
}

func decodeDocument(name string, doc []byte, skipped int, emit func(int, *unstructured.Unstructured) error) error {
	var node yaml.Node
	err := yaml.NewDecoder(bytes.NewReader(doc)).Decode(&node)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return invalidYAMLAt(name, skipped, err)
	}
	top := &node
	if top.Kind == yaml.DocumentNode {
		if len(top.Content) == 0 {
			return nil
		}
		top = top.Content[0]
	}
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" || top.Kind == yaml.MappingNode && len(top.Content) == 0 {
		return nil
	}
	line := skipped + top.Line
	if top.Kind != yaml.MappingNode {
		return incomplete(name+":"+strconv.Itoa(line), &unstructured.Unstructured{Object: map[string]any{}})
	}
	value, err := valueOf(top, false)
	if twice := (*duplicateKey)(nil); errors.As(err, &twice) {
		return invalidYAMLAt(name, skipped, err)
	}
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: value.(map[string]any)}
	switch passesUntouched(u.Object) {
	case no:
		return errNotDirect
	case notAnObject:
		return incomplete(name+":"+strconv.Itoa(line), u)
	}
	return emit(line, u)
}

type answer int

const (
	yes answer = iota
	no
	notAnObject
)

// passesUntouched says whether kustomize passes an object on as it is when
// nothing in the kustomization asks it to change anything.
func passesUntouched(obj map[string]any) answer {
	kind, ok := obj["kind"].(string)
	if !ok || kind == "" {
		return notAnObject
	}
	if strings.HasSuffix(kind, "List") {
		return no // its items are what counts
	}
	meta, ok := obj["metadata"].(map[string]any)
	if !ok {
		return notAnObject
	}
	if name, ok := meta["name"].(string); !ok || name == "" {
		return notAnObject
	}
	if ns, there := meta["namespace"]; there {
		if s, ok := ns.(string); !ok || s == "" {
			return no
		}
	}
	if !stringMap(meta, "labels") || !stringMap(meta, "annotations") {
		return no // kustomize makes strings of the values, and drops empty maps
	}
	annotations, _ := meta["annotations"].(map[string]any)
	for key := range annotations {
		if domain, _, _ := strings.Cut(key, "/"); domain == "config.kubernetes.io" || domain == "config.k8s.io" ||
			strings.HasSuffix(domain, ".config.kubernetes.io") || strings.HasSuffix(domain, ".config.k8s.io") || domain == "kustomize.config.k8s.io" {
			return no // some of them are orders to kustomize
		}
	}
	return yes
}

// stringMap reports whether field is absent or a map of strings that is not empty.
func stringMap(meta map[string]any, field string) bool {
	value, there := meta[field]
	if !there {
		return true
	}
	m, ok := value.(map[string]any)
	for _, v := range m {
		if _, isString := v.(string); !isString {
			return false
		}
	}
	return ok && len(m) > 0
}

// valueOf converts a YAML node into what its JSON form would decode to. flow
// says that the node is in a collection in flow style.
func valueOf(n *yaml.Node, flow bool) (any, error) {
	if n.Anchor != "" {
		return nil, errNotDirect
	}
	flow = flow || n.Style&yaml.FlowStyle != 0
	switch n.Kind {
	case yaml.MappingNode:
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
				return nil, &duplicateKey{key: key.Value, line: key.Line}
			}
			m[common(key.Value)] = v
		}
		return m, plainTag(n, "!!map")
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			v, err := valueOf(c, flow)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, plainTag(n, "!!seq")
	case yaml.ScalarNode:
		return scalarOf(n, flow)
	}
	return nil, errNotDirect
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
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && strings.HasPrefix(n.Value, "\t") {
			return nil, errNotDirect // kustomize prints what it cannot read
		}
		if text := strings.TrimSuffix(n.Value, "\n"); n.Style&yaml.FoldedStyle != 0 && (text == "" || strings.ContainsAny(text, "\n\u0085\u2028\u2029")) {
			return nil, errNotDirect // kustomize adds line ends to some of these
		}
		return n.Value, nil
	case "!!null":
		switch {
		case n.Value == "null", n.Value == "~", n.Value == "" && !flow: // kustomize makes an empty string of "" in flow style
			return nil, nil
		}
	case "!!bool":
		switch n.Value {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	case "!!int":
		// Other forms of numbers are rare and left to kustomize.
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil && strconv.FormatInt(i, 10) == n.Value {
			return i, nil
		}
	case "!!float":
		// JSON has one kind of number: a whole one is an integer.
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && simpleFloat(n.Value) {
			if f == float64(int64(f)) {
				return int64(f), nil
			}
			return f, nil
		}
	}
	return nil, errNotDirect
}

// simpleFloat reports whether s is a short plain decimal such as 0.25.
func simpleFloat(s string) bool {
	whole, frac, ok := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	return ok && len(s) <= 15 && digits(whole) && digits(frac)
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// duplicateKey says that a mapping gives one key twice.
type duplicateKey struct {
	key  string
	line int
}

func (d *duplicateKey) Error() string {
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
