package controller

import (
	"context"
	"errors"
	"fmt"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// gitRepositories is the kind of sources that are Git repositories.
type gitRepositories struct {
	*sourceRoom
	store    repositories
	identity SourceIdentity
}

// registerGitRepositories adds the reconciler of GitRepositories.
func (e *engine) registerGitRepositories(ctx context.Context) error {
	if err := e.mgr.GetFieldIndexer().IndexField(ctx, &sourcev1.GitRepository{}, indexInclude, indexByInclude); err != nil {
		return fmt.Errorf("index GitRepositories by what they include: %w", err)
	}
	return registerSource(e, &gitRepositories{e.sourceRoom(sourcev1.GitRepositoryKind), e.repositories, e.identity})
}

// fetch implements sourceKind. What the repository includes is added.
func (r *gitRepositories) fetch(ctx context.Context, g *sourcev1.GitRepository) (fetched, error) {
	secrets, end := r.secrets(g)
	req, err := RequestOf(ctx, secrets, r.identity, g)
	end()
	if err != nil {
		return fetched{}, err
	}
	included, err := r.inclusions(ctx, g)
	if err != nil {
		return fetched{}, err
	}
	artifact, err := r.store.Fetch(ctx, req)
	if err == nil {
		artifact, err = include(g, artifact, included)
	}
	got := stored(artifact, fmt.Sprintf("stored artifact for revision '%s'", artifact.Revision))
	got.observe = func() {
		g.Status.ObservedIgnore = g.Spec.Ignore
		g.Status.ObservedSparseCheckout = g.Spec.SparseCheckout
		g.Status.ObservedRecurseSubmodules = g.Spec.RecurseSubmodules
		r.reportIncluded(ctx, g, included)
		reportVerified(g, artifact.Verified)
	}
	return got, err
}

// recall implements sourceKind.
func (r *gitRepositories) recall(ctx context.Context, g *sourcev1.GitRepository) (fetched, error) {
	artifact, err := r.recalled(ctx, g)
	return fetched{artifact: artifact}, err
}

func (r *gitRepositories) recalled(ctx context.Context, g *sourcev1.GitRepository) (source.Artifact, error) {
	included, err := r.inclusions(ctx, g)
	if err != nil {
		return source.Artifact{}, err
	}
	if !r.sameInclusions(ctx, g, included) {
		return source.Artifact{}, errors.New("what it includes has changed")
	}
	artifact, err := r.store.Recall(ctx, requestOf(g), g.Status.Artifact.Revision)
	if err != nil {
		return source.Artifact{}, err
	}
	return include(g, artifact, included)
}

// reason implements sourceKind.
func (r *gitRepositories) reason(err error) string {
	var unverified *git.UnverifiedError
	var notIncluded *includeError
	var provider *providerError
	switch {
	case errors.As(err, &provider):
		return sourcev1.InvalidProviderConfigurationReason
	case errors.As(err, &notIncluded):
		return notIncluded.reason
	case errors.As(err, &unverified):
		return unverified.Reason
	case errors.Is(err, failure.Of(failure.Unsupported)):
		return report.ReasonNotSupported
	case errors.Is(err, failure.Of(failure.Denied)):
		return sourcev1.AuthenticationFailedReason
	default:
		return sourcev1.GitOperationFailedReason
	}
}
