package kustomize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/kyaml/kio"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// viaKyaml decodes a manifest as kustomize prints it when it changed nothing.
func viaKyaml(data []byte) (string, error) {
	nodes, err := kio.FromBytes(data)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, n := range nodes {
		data, err := n.MarshalJSON()
		if err != nil {
			return "", err
		}
		var m map[string]any
		if err := utiljson.Unmarshal(data, &m); err != nil {
			return "", err
		}
		out, err := json.Marshal(m)
		if err != nil {
			return "", err
		}
		b.Write(out)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

func viaDecode(data []byte) (string, error) {
	var b strings.Builder
	err := decode("f", data, func(_ int, u *unstructured.Unstructured) error {
		out, err := json.Marshal(u.Object)
		b.Write(out)
		b.WriteByte('\n')
		return err
	})
	return b.String(), err
}

// pieces are what random YAML is made of: characters and words that have a
// meaning somewhere in YAML, in the order of nothing in particular.
var pieces = []string{
	" ", "  ", "\n", "\n\n", "\n  ", "\n    ", "\t", "a", "b", "word", "-", "- ", ":", ": ", "#", " #", "'", "\"", "\\", "|", ">", "[", "]", "{", "}", ",", "&", "*", "!", "%", "@", "`", "?",
	"é", "日", "\u00a0", "\u2028", "\x7f", "0", "1", "0x1", "1e3", "1.0", "0.5", "-3", "true", "no", "null", "~", "=", "<<", "2001-01-01", "...", "---",
	"a somewhat longer run of words that makes an emitter think of breaking the line somewhere around here",
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(7) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// styled writes s as a value of a block mapping in a random style. What comes
// out need not mean s, nor be YAML at all.
func styled(r *rand.Rand, s string) string {
	indented := "\n    " + strings.ReplaceAll(s, "\n", "\n    ")
	switch r.IntN(8) {
	case 0:
		return "|" + indented
	case 1:
		return "|-" + indented
	case 2:
		return ">" + indented
	case 3:
		return ">+" + indented
	case 4:
		data, _ := json.Marshal(s)
		return string(data)
	case 5:
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	case 6:
		return "[" + s + ", {a: " + s + "}]"
	}
	return s
}

// TestDecodeIsKyaml compares decode with kyaml on random documents.
func TestDecodeIsKyaml(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	bad := 0
	same, rounds := 0, 20000
	if testing.Short() {
		rounds = 2000
	}
	for range rounds {
		doc := configMap + "data:\n"
		for i := range 3 {
			if r.IntN(3) == 0 {
				doc += strings.Repeat(" ", r.IntN(6)) + "# " + strings.ReplaceAll(randomText(r), "\n", "\n#") + "\n"
			}
			doc += fmt.Sprintf("  k%d: %s\n", i, styled(r, randomText(r)))
		}
		got, err := viaDecode([]byte(doc))
		if err != nil {
			continue // left to kustomize, or wrong
		}
		want, werr := viaKyaml([]byte(doc))
		switch {
		case werr != nil:
			t.Errorf("kyaml fails: %v\n%s", werr, doc)
		case got != want:
			bad++
			t.Errorf("document %q:\n got %s\nwant %s", doc, got, want)
		default:
			same++
		}
		if bad > 12 {
			break
		}
	}
	if same < rounds/25 {
		t.Errorf("only %d of %d documents were compared", same, rounds)
	}
}

// randomNode returns a node as a transformation of kustomize may leave it: with
// a value, a type and a style that need not fit one another.
func randomNode(r *rand.Rand, depth int) *yaml.Node {
	styles := []yaml.Style{0, 0, 0, yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle, yaml.TaggedStyle}
	n := &yaml.Node{Style: styles[r.IntN(len(styles))]}
	if r.IntN(4) == 0 {
		n.HeadComment = "# " + strings.NewReplacer("\n", " ", "\x7f", "").Replace(randomText(r))
	}
	switch kind := r.IntN(6); {
	case kind == 0 && depth > 0:
		n.Kind, n.Tag, n.Style = yaml.MappingNode, []string{"!!map", ""}[r.IntN(2)], []yaml.Style{0, yaml.FlowStyle}[r.IntN(2)]
		for i := range r.IntN(3) {
			key := &yaml.Node{Kind: yaml.ScalarNode, Tag: []string{"!!str", ""}[r.IntN(2)], Value: fmt.Sprintf("%d%s", i, randomText(r))}
			n.Content = append(n.Content, key, randomNode(r, depth-1))
		}
	case kind == 1 && depth > 0:
		n.Kind, n.Tag, n.Style = yaml.SequenceNode, []string{"!!seq", ""}[r.IntN(2)], []yaml.Style{0, yaml.FlowStyle}[r.IntN(2)]
		for range r.IntN(3) {
			n.Content = append(n.Content, randomNode(r, depth-1))
		}
	default:
		tags := []string{"", "!!str", "!!str", "!!str", "!!int", "!!float", "!!bool", "!!null"}
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, tags[r.IntN(len(tags))], randomText(r)
		if r.IntN(2) == 0 {
			n.Value = pieces[r.IntN(len(pieces))]
		}
	}
	return n
}

// TestNodesAreTheirJSON compares what is taken out of nodes with what kyaml
// makes of them by way of text.
func TestNodesAreTheirJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	same, bad, rounds := 0, 0, 20000
	for range rounds {
		top := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for i := range 2 {
			top.Content = append(top.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: fmt.Sprintf("k%d", i)}, randomNode(r, 2))
		}
		value, err := valueOf(top, false)
		if err != nil {
			continue
		}
		got, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		text, err := kyaml.NewRNode(top).MarshalJSON()
		if err == nil {
			err = utiljson.Unmarshal(text, &m)
		}
		want, _ := json.Marshal(m)
		if err == nil && bytes.Equal(got, want) {
			same++
			continue
		}
		printed, _ := kyaml.NewRNode(top).String()
		t.Errorf("node %q:\n got %s\nwant %s %v", printed, got, want, err)
		if bad++; bad > 8 {
			break
		}
	}
	if same < rounds/25 {
		t.Errorf("only %d of %d nodes were compared", same, rounds)
	}
}
