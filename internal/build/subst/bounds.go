package subst

import (
	"errors"
	"math"

	shell "github.com/fluxcd/pkg/envsubst/parse"
)

// maxGrowth bounds, in bytes, what the variables of one build may put into its objects:
// a few lines that name a large value often, or replace each letter of one by another,
// would take all memory. Objects of a build that can be stored stay far below it.
const maxGrowth = 64 << 20

// trimming is how much cheaper a byte that a trim compares is than one that is kept.
const trimming = 64

var errGrowth = errors.New("its variables stand for more than can be stored")

// spend notes what the variables of a text stand for, and reports whether that is too much.
func (l *lookup) spend(text string) error {
	tree, err := shell.Parse(text)
	if err != nil {
		return nil //nolint:nilerr // evaluating it says so
	}
	root, ok := tree.Root.(*shell.ListNode)
	if !ok {
		root = &shell.ListNode{Nodes: []shell.Node{tree.Root}}
	}
	for _, n := range root.Nodes {
		if _, plain := n.(*shell.TextNode); !plain {
			*l.left -= l.growth(n)
		}
		if *l.left < 0 {
			return errGrowth
		}
	}
	return nil
}

// growth is at least what evaluating the node puts into the text, in bytes, with what
// it takes to do so. It saturates.
func (l *lookup) growth(n shell.Node) int {
	switch n := n.(type) {
	case *shell.TextNode:
		return len(n.Value)
	case *shell.ListNode:
		return l.growthOf(n.Nodes)
	case *shell.FuncNode:
		value, args := len(l.values[n.Param]), l.growthOf(n.Args)
		switch n.Name {
		case "//": // an empty pattern is found before each letter
			return plus(value, times(value+1, args))
		case "#", "##", "%", "%%": // each prefix is tried
			return plus(plus(value, args), times(value, value)/trimming)
		default:
			return plus(value, args)
		}
	}
	return 0
}

func (l *lookup) growthOf(nodes []shell.Node) int {
	sum := 0
	for _, n := range nodes {
		sum = plus(sum, l.growth(n))
	}
	return sum
}

func plus(a, b int) int { return min(a, math.MaxInt32) + min(b, math.MaxInt32) }

func times(a, b int) int { return min(a, math.MaxInt32) * min(b, math.MaxInt32) }
