package compose

import (
	"path"

	"github.com/bowline-dev/bowline/internal/source"
)

// Filter says of a path in the tree that is made whether rules hide it, and for a folder whether
// they hide all that is in it, too; see snapshot.Tree.Filter.
type Filter func(path string, isDir bool) (hidden, all bool)

// Include is Graft for what the rules of the tree that is made apply to: what they
// hide is left out. With a filter that is nil, it is Graft.
func (b *Builder) Include(a source.Artifact, from, to string, hides Filter) error {
	from, err := inside("the source", from)
	if err != nil {
		return err
	}
	if to, err = inside("the artifact", to); err != nil {
		return err
	}
	n, err := reference(a, from)
	if err != nil {
		return err
	}
	if hides == nil {
		return b.lay(to, n)
	}
	return b.include(n, to, hides)
}

func (b *Builder) include(n *node, to string, hides Filter) error {
	dir := !n.isLink() && n.isDir() // what a link leads to is not walked: links may lead in circles
	hidden, all := hides(to, dir)
	switch {
	case hidden && (all || !dir):
		return nil
	case !dir:
		return b.lay(to, n)
	}
	if err := n.expand(); err != nil {
		return err
	}
	for name, kid := range n.kids {
		if err := b.include(kid, path.Join(to, name), hides); err != nil {
			return err
		}
	}
	return nil
}
