package cli

import (
	"context"
	"fmt"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// maxIncludeDepth bounds how deep sources may include others in a preview; the engine refuses circles.
const maxIncludeDepth = 10

// fetcher fetches a repository; see fetchOnce.
type fetcher func(ctx context.Context, req git.Request, revision string) (a source.Artifact, done func(), err error)

// fetcher fetches into the store of the previews, if they share one.
func (o *diffOptions) fetcher() fetcher {
	if o.store == nil {
		return fetchOnce
	}
	return func(ctx context.Context, req git.Request, _ string) (source.Artifact, func(), error) {
		a, err := o.store.Fetch(ctx, req)
		return a, func() {}, err
	}
}

// fetched is the state of a source with what it includes, fetched for a preview. An empty
// revision means the one that the source asks for. A revision that somebody names is shown to them
// whoever signed it: a preview delivers nothing.
func (c *cluster) fetched(ctx context.Context, g *sourcev1.GitRepository, revision string, fetch fetcher, depth int) (a source.Artifact, done func(), err error) {
	g = g.DeepCopy()
	if revision != "" {
		g.Spec.Verification = nil
	}
	req, err := controller.RequestOf(ctx, c, controller.SourceIdentity{}, g)
	if err != nil {
		return a, nil, err
	}
	main, done, err := fetch(ctx, req, revision)
	if err != nil {
		return a, nil, err
	}
	return c.included(ctx, g, main, done, fetch, depth)
}

// included lays what a source includes over a state of it. It takes over done.
func (c *cluster) included(ctx context.Context, g *sourcev1.GitRepository, main source.Artifact, done func(), fetch fetcher, depth int) (source.Artifact, func(), error) {
	parts := make([]source.Artifact, 0, len(g.Spec.Include))
	fail := func(err error) (source.Artifact, func(), error) {
		done()
		return source.Artifact{}, nil, err
	}
	if depth > maxIncludeDepth {
		return fail(&failure.Error{Op: "include", Object: "gitrepository/" + g.Name, Kind: failure.Invalid,
			Err: fmt.Errorf("sources include one another more than %d deep", maxIncludeDepth), Remedy: "remove one of the includes"})
	}
	for _, include := range g.Spec.Include {
		dep, err := getAs[*sourcev1.GitRepository](ctx, c, gitRepositoryKind(), include.GitRepositoryRef.Name)
		if err != nil {
			return fail(err)
		}
		part, letGo, err := c.fetched(ctx, dep, "", fetch, depth+1)
		if err != nil {
			return fail(err)
		}
		before := done
		done = func() { letGo(); before() }
		parts = append(parts, part)
	}
	whole, err := controller.Include(g, main, parts)
	if err != nil {
		return fail(err)
	}
	return whole, done, nil
}
