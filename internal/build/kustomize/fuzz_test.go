package kustomize

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/kyaml/kio"
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
		if werr != nil {
			t.Errorf("kyaml fails: %v\n%s", werr, doc)
		} else if got != want {
			bad++
			t.Errorf("document %q:\n got %s\nwant %s", doc, got, want)
		} else {
			same++
		}
		if bad > 12 {
			break
		}
	}
	if same < rounds/20 {
		t.Errorf("only %d of %d documents were compared", same, rounds)
	}
}
