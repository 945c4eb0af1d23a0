package legacy

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is one YAML document of a file, with the lines it is made of.
type document struct {
	path string
	// first is the number of its first line in the file, from one.
	first int
	lines []string
	// separator is the line that ended it, such as "---"; empty at the end of the file.
	separator string
	// root is nil where the text is no YAML mapping.
	root *yaml.Node
}

// split takes a file apart; join puts it together again.
func split(p string, text []byte) []*document {
	d := &document{path: p, first: 1}
	out := []*document{d}
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	for i, line := range lines {
		if line = strings.TrimRight(line, "\r\n"); line == "---" || strings.HasPrefix(line, "--- ") {
			d.separator = lines[i]
			d = &document{path: p, first: i + 2}
			out = append(out, d)
			continue
		}
		d.lines = append(d.lines, lines[i])
	}
	for _, d := range out {
		d.parse()
	}
	return out
}

func join(docs []*document) []byte {
	var b bytes.Buffer
	for _, d := range docs {
		for _, line := range d.lines {
			b.WriteString(line)
		}
		b.WriteString(d.separator)
	}
	return b.Bytes()
}

func (d *document) parse() {
	d.root = parseMapping(strings.Join(d.lines, ""))
}

// parseMapping returns nil for what is no YAML mapping.
func parseMapping(text string) *yaml.Node {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil || len(n.Content) != 1 || n.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	return n.Content[0]
}

// line is where a node is in the file.
func (d *document) line(n *yaml.Node) int {
	if n == nil {
		return d.first
	}
	return d.first + n.Line - 1
}

// entry is one field of a mapping; both parts are nil where there is none.
type entry struct{ key, value *yaml.Node }

func field(m *yaml.Node, name string) entry {
	if m = resolve(m); m == nil || m.Kind != yaml.MappingNode {
		return entry{}
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return entry{m.Content[i], m.Content[i+1]}
		}
	}
	return entry{}
}

// at follows a path of fields.
func at(m *yaml.Node, names ...string) *yaml.Node {
	for _, name := range names {
		m = field(m, name).value
	}
	return resolve(m)
}

// text is a scalar below m, and "" where there is none.
func text(m *yaml.Node, names ...string) string {
	if n := at(m, names...); n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return n.Value
	}
	return ""
}

func isTrue(m *yaml.Node, names ...string) bool {
	n := at(m, names...)
	var v bool
	return n != nil && n.Decode(&v) == nil && v
}

func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// span returns the lines of entry i of a block mapping, counted from zero within the
// document: comments above it at from, the key at its line, and what belongs to it
// until to. limit is where the mapping ends.
func (d *document) span(m *yaml.Node, i, limit int) (from, key, to int) {
	key = m.Content[2*i].Line - 1
	if to = limit; 2*i+2 < len(m.Content) {
		next := m.Content[2*i+2]
		to = d.above(next.Line-1, next.Column)
	} else {
		for to > key+1 && isFiller(d.lines[to-1]) {
			to--
		}
	}
	return d.above(key, m.Content[2*i].Column), key, to
}

// above is the first of the comment lines that stand directly above a key.
func (d *document) above(key, column int) int {
	indent := strings.Repeat(" ", column-1)
	for key > 0 && strings.HasPrefix(d.lines[key-1], indent+"#") {
		key--
	}
	return key
}

func isFiller(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || strings.HasPrefix(line, "#")
}

// index is the number of a field among those of m, -1 where there is none.
func index(m *yaml.Node, name string) int {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return i / 2
		}
	}
	return -1
}

// end is the line, from zero, at which the value of a top-level field ends.
func (d *document) end(name string) int {
	_, _, to := d.span(d.root, index(d.root, name), len(d.lines))
	return to
}

// render writes fields as lines, indented to a column that counts from one.
func render(column int, fields *yaml.Node) []string {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(fields); err != nil {
		return nil // a tree of ours has no shape that cannot be written
	}
	indent := strings.Repeat(" ", column-1)
	var out []string
	for _, line := range strings.SplitAfter(strings.TrimSuffix(b.String(), "\n"), "\n") {
		if strings.TrimSpace(line) != "" {
			line = indent + line
		}
		out = append(out, strings.TrimSuffix(line, "\n")+"\n")
	}
	return out
}

// comments are all comments in an entry, but for those above it.
func comments(e entry) []string {
	out := lineComments(e.key.LineComment)
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		out = append(out, lineComments(n.HeadComment)...)
		out = append(out, lineComments(n.LineComment)...)
		for _, c := range n.Content {
			walk(c)
		}
		out = append(out, lineComments(n.FootComment)...)
	}
	walk(e.value)
	return out
}

func lineComments(c string) []string {
	if c == "" {
		return nil
	}
	return strings.Split(c, "\n")
}
