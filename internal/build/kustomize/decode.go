package kustomize

import (
	"bytes"
	"errors"
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
	i := bytes.Index(text, []byte("\n---"))
	if i < 0 {
		return text, nil, nil
	}
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
	obj, err := mappingOf(top, false)
	if twice := (*duplicateKeyError)(nil); errors.As(err, &twice) {
		return invalidYAMLAt(name, skipped, err)
	}
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: obj}
	switch passesUntouched(u.Object) {
	case yes:
		return emit(line, u)
	case notAnObject:
		return incomplete(name+":"+strconv.Itoa(line), u)
	default:
		return errNotDirect
	}
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
	if ns, there := meta["namespace"]; there && (ns == "" || !isString(ns)) {
		return no
	}
	if !stringMap(meta, "labels") || !stringMap(meta, "annotations") {
		return no // kustomize makes strings of the values, and drops empty maps
	}
	annotations, _ := meta["annotations"].(map[string]any)
	for key := range annotations {
		if ofKustomize(key) {
			return no
		}
	}
	return yes
}

// ofKustomize reports whether an annotation belongs to kustomize. Some are
// orders, and some are removed from what is built.
func ofKustomize(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	for _, own := range []string{"config.kubernetes.io", "config.k8s.io"} {
		if rest, ok := strings.CutSuffix(domain, own); ok && (rest == "" || strings.HasSuffix(rest, ".")) {
			return true
		}
	}
	return false
}

func isString(value any) bool {
	_, ok := value.(string)
	return ok
}

// stringMap reports whether field is absent or a map of strings that is not empty.
func stringMap(meta map[string]any, field string) bool {
	value, there := meta[field]
	if !there {
		return true
	}
	m, ok := value.(map[string]any)
	for _, v := range m {
		if !isString(v) {
			return false
		}
	}
	return ok && len(m) > 0
}
