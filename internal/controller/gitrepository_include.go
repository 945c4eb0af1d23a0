package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/compose"
)

// Reasons of the toolkit for a GitRepository whose includes fail.
const (
	reasonNotFound    = "NotFound"
	reasonNoArtifact  = "NoArtifact"
	reasonIllegalPath = "IllegalPath"
	reasonCopyFailure = "CopyFailure"
)

// includeError says that what a GitRepository includes is not there, or cannot be put where it is wanted.
type includeError struct {
	condition, reason string
	err               error
}

func (e *includeError) Error() string { return e.err.Error() }

func (e *includeError) Unwrap() error { return e.err }

// inclusion is one entry of spec.include with what it stands for now.
type inclusion struct {
	spec     sourcev1.GitRepositoryInclude
	artifact source.Artifact
	// told is what the status of its source says.
	told *meta.Artifact
}

func repositoryKey(namespace, name string) sourceKey {
	return sourceKey{Kind: sourcev1.GitRepositoryKind, NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
}

func includeNotReady(g *sourcev1.GitRepository, name, reason string, kind failure.Kind, why, remedy string) error {
	return &includeError{condition: sourcev1.IncludeUnavailableCondition, reason: reason, err: &failure.Error{
		Op: "include", Object: sourcev1.GitRepositoryKind + "/" + g.Namespace + "/" + name, Kind: kind, Err: errors.New(why), Remedy: remedy,
	}}
}

// inclusions returns what a GitRepository includes, and an includeError unless all of it is there.
func (r *gitRepositories) inclusions(ctx context.Context, g *sourcev1.GitRepository) ([]inclusion, error) {
	if len(g.Spec.Include) == 0 {
		return nil, nil
	}
	if circle := r.circle(ctx, g); circle != nil {
		return nil, includeNotReady(g, circle[1], report.ReasonCircularDependency, failure.Conflict,
			"it includes this one in turn: "+strings.Join(circle, " → "), "remove one of the includes")
	}
	out := make([]inclusion, 0, len(g.Spec.Include))
	for _, spec := range g.Spec.Include {
		name := spec.GitRepositoryRef.Name
		var dep sourcev1.GitRepository
		err := r.client.Get(ctx, client.ObjectKey{Namespace: g.Namespace, Name: name}, &dep)
		if apierrors.IsNotFound(err) {
			return nil, includeNotReady(g, name, reasonNotFound, failure.NotFound, "there is none", "create it, or correct spec.include")
		}
		if err != nil {
			return nil, fmt.Errorf("read GitRepository %s/%s: %w", g.Namespace, name, err)
		}
		artifact, ok := r.artifacts.get(repositoryKey(g.Namespace, name))
		if !ok && dep.Status.Artifact != nil {
			// After a restart: what is on disk does until it is fetched, or another one is.
			if artifact, err = r.recalled(ctx, &dep); err == nil {
				ok = true
			}
		}
		if !ok {
			return nil, includeNotReady(g, name, reasonNoArtifact, failure.Unavailable, "it has no artifact yet", "it is included as soon as it has; see its conditions")
		}
		out = append(out, inclusion{spec, artifact, dep.Status.Artifact.DeepCopy()})
	}
	return out, nil
}

// includedAs is what the status says of an artifact: what it says already, if that is still so.
func (r *gitRepositories) includedAs(ctx context.Context, g *sourcev1.GitRepository, i int, p inclusion) *meta.Artifact {
	if i < len(g.Status.IncludedArtifacts) && r.published.is(ctx, g.Status.IncludedArtifacts[i], p.artifact) {
		return g.Status.IncludedArtifacts[i]
	}
	if r.published.is(ctx, p.told, p.artifact) {
		return p.told
	}
	return r.published.status(ctx, repositoryKey(g.Namespace, p.spec.GitRepositoryRef.Name), p.artifact, nil, r.clock.Now())
}

// circle returns the names on the way from g back to g through includes, both ends with them, and
// nil when there is none.
func (r *gitRepositories) circle(ctx context.Context, g *sourcev1.GitRepository) []string {
	seen := map[string]bool{}
	var visit func(from *sourcev1.GitRepository) []string
	visit = func(from *sourcev1.GitRepository) []string {
		for _, include := range from.Spec.Include {
			name := include.GitRepositoryRef.Name
			if name == g.Name {
				return []string{from.Name, g.Name}
			}
			if seen[name] {
				continue
			}
			seen[name] = true
			var dep sourcev1.GitRepository
			if err := r.client.Get(ctx, client.ObjectKey{Namespace: g.Namespace, Name: name}, &dep); err != nil {
				continue // said where it is included
			}
			if way := visit(&dep); way != nil {
				return append([]string{from.Name}, way...)
			}
		}
		return nil
	}
	return visit(g)
}

func include(g *sourcev1.GitRepository, main source.Artifact, parts []inclusion) (source.Artifact, error) {
	artifacts := make([]source.Artifact, 0, len(parts))
	for _, p := range parts {
		artifacts = append(artifacts, p.artifact)
	}
	return Include(g, main, artifacts)
}

// Include lays what spec.include names over an artifact: parts are the artifacts of those that it
// names, in that order. The revision stays; the digest tells of all.
func Include(g *sourcev1.GitRepository, main source.Artifact, parts []source.Artifact) (source.Artifact, error) {
	if len(parts) == 0 {
		return main, nil
	}
	b := compose.New()
	if err := b.Graft(main, ".", "."); err != nil {
		return source.Artifact{}, err
	}
	var hides compose.Filter
	if t, ok := main.Tree.(interface {
		Filter() func(string, bool) (hidden, all bool)
	}); ok {
		hides = t.Filter()
	}
	for i, spec := range g.Spec.Include {
		// Paths begin at the root of an artifact, with or without saying so.
		from, to := strings.TrimLeft(spec.GetFromPath(), "/"), strings.TrimLeft(spec.GetToPath(), "/")
		if err := b.Include(parts[i], from, to, hides); err != nil {
			return source.Artifact{}, copyFailure(g, spec, err)
		}
	}
	tree := b.Tree()
	digest, err := tree.Digest()
	if err != nil {
		return source.Artifact{}, err
	}
	main.Digest, main.Tree = digest, tree
	return main, nil
}

func copyFailure(g *sourcev1.GitRepository, spec sourcev1.GitRepositoryInclude, err error) error {
	kind := failure.KindOf(err)
	e := &includeError{condition: sourcev1.StorageOperationFailedCondition, reason: reasonCopyFailure, err: &failure.Error{
		Op: "include", Object: sourcev1.GitRepositoryKind + "/" + g.Namespace + "/" + spec.GitRepositoryRef.Name, Kind: kind,
		Err: fmt.Errorf("from %q to %q: %w", spec.GetFromPath(), spec.GetToPath(), err),
	}}
	if kind == failure.Invalid {
		e.reason = reasonIllegalPath
	}
	return e
}

// sameInclusions reports whether the status tells of the same artifacts.
func (r *gitRepositories) sameInclusions(ctx context.Context, g *sourcev1.GitRepository, parts []inclusion) bool {
	if len(parts) != len(g.Status.IncludedArtifacts) {
		return false
	}
	for i, p := range parts {
		if !r.published.is(ctx, g.Status.IncludedArtifacts[i], p.artifact) {
			return false
		}
	}
	return true
}

// reportIncluded says what a new artifact includes.
func (r *gitRepositories) reportIncluded(ctx context.Context, g *sourcev1.GitRepository, parts []inclusion) {
	g.Status.ObservedInclude = g.Spec.Include
	var included []*meta.Artifact
	for i, p := range parts {
		included = append(included, r.includedAs(ctx, g, i, p))
	}
	g.Status.IncludedArtifacts = included
	report.Included(g)
}

// indexInclude finds the GitRepositories that include one.
const indexInclude = "bowline.include"

func indexByInclude(o client.Object) []string {
	g, ok := o.(*sourcev1.GitRepository)
	if !ok {
		return nil
	}
	var names []string
	for _, include := range g.Spec.Include {
		names = append(names, repositoryKey(g.Namespace, include.GitRepositoryRef.Name).String())
	}
	return names
}
