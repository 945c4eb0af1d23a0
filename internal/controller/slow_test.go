package controller

import (
	"context"
	"sync/atomic"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// slowTree takes until the end of the time given to read anything, while slow.
type slowTree struct {
	source.Tree
	ctx  context.Context //nolint:containedctx // the time that is given
	slow *atomic.Bool
}

// ReadFile implements fs.ReadFileFS.
func (t slowTree) ReadFile(name string) ([]byte, error) {
	if t.slow.Load() {
		<-t.ctx.Done()
	}
	return t.Tree.ReadFile(name)
}

// A build that runs past its timeout is given up with a clear message, what runs is
// left alone, and the unit recovers.
func TestBuildPastItsTimeout(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	var slow atomic.Bool
	engine := engineFor(t, instance.Config, func(o *Options) {
		o.builder = func(ctx context.Context, tree source.Tree, recipe build.Recipe) (build.Result, error) {
			return kustomize.Build(ctx, slowTree{tree, ctx, &slow}, recipe)
		}
	})
	s := stageOn(t, instance.Config)
	s.engine = engine
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.Timeout = shortest })
	s.awaitLive("app", first)
	before := s.deliveredConfigs()

	slow.Store(true)
	second := s.push(map[string]string{"app/a.yaml": configMap("a", "2")})
	s.awaitFailure("app", meta.BuildFailedReason, "deadline exceeded", "raise spec.timeout")
	s.untouched(before)
	slow.Store(false)
	s.awaitLive("app", second)
}
