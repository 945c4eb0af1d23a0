package legacy

import (
	"strconv"

	"go.yaml.in/yaml/v3"
)

// mapping collects fields in the order in which they are written.
type mapping struct{ yaml.Node }

func newMapping() *mapping {
	return &mapping{yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}}
}

func word(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func number(i int64) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(i, 10)}
}

func truth(v bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
}

func yes() *yaml.Node { return truth(true) }

func (m *mapping) set(name string, value *yaml.Node) *mapping {
	m.Content = append(m.Content, word(name), value)
	return m
}

// move sets a field to the value of another, with the comments of both its parts.
func (m *mapping) move(name string, e entry) *mapping {
	if e.value == nil {
		return m
	}
	key := word(name)
	key.HeadComment, key.LineComment, key.FootComment = e.key.HeadComment, e.key.LineComment, e.key.FootComment
	m.Content = append(m.Content, key, e.value)
	return m
}

// add sets a field to a mapping, unless that is empty.
func (m *mapping) add(name string, value *mapping) *mapping {
	if len(value.Content) > 0 {
		m.set(name, &value.Node)
	}
	return m
}

func list(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: items}
}
