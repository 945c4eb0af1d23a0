package kustomize

import (
	"context"
	"sync"
	"testing"
)

// TestConcurrentBuilds builds everything at once, some with schemas of their
// own, which kyaml keeps in package variables: each must come out as it does
// alone.
func TestConcurrentBuilds(t *testing.T) {
	all := goldens(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range all {
				g := all[(i+worker*3)%len(all)]
				res, err := Build(context.Background(), g.tree, g.recipe)
				if got := printed(t, res, err); got != g.want {
					t.Errorf("%s:\n got %s\nwant %s", g.file, got, g.want)
				}
			}
		})
	}
	wg.Wait()
}
