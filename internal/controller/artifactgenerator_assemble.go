package controller

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"

	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/compose"
)

// output is an artifact that a generator made.
type output struct {
	source.Artifact
	name string
	// labels are what the path pattern captured.
	labels map[string]string
}

// inputsOf identifies all that a generator's artifacts depend on.
func inputsOf(g *swapi.ArtifactGenerator, sources map[string]source.Artifact) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", g.UID, g.Generation)
	for _, alias := range slices.Sorted(maps.Keys(sources)) {
		a := sources[alias]
		fmt.Fprintf(&b, " %s=%s %s %s", alias, a.Revision, a.Digest, a.OriginRevision())
	}
	return b.String()
}

// observedDigest is the toolkit's digest of the sources.
func observedDigest(sources map[string]source.Artifact) string {
	observed := map[string]swapi.ObservedSource{}
	for alias, a := range sources {
		observed[alias] = swapi.ObservedSource{Digest: a.Digest, Revision: a.Revision}
	}
	return swapi.HashObservedSources(observed)
}

// assemble makes the artifacts of a generator. One that fails does not hold up the others.
func assemble(g *swapi.ArtifactGenerator, sources map[string]source.Artifact) ([]output, error) {
	wanted, err := templates(g, sources)
	if err != nil {
		return nil, err
	}
	var failed error
	outputs := make([]output, 0, len(wanted))
	for i := range wanted {
		artifact, err := assembleOne(&wanted[i].OutputArtifact, sources)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("artifact %q: %w", wanted[i].Name, err))
		}
		// One that failed keeps its place, so that what there is of it stays.
		outputs = append(outputs, output{Artifact: artifact, name: wanted[i].Name, labels: wanted[i].labels})
	}
	return outputs, failed
}

func assembleOne(o *swapi.OutputArtifact, sources map[string]source.Artifact) (source.Artifact, error) {
	b := compose.New()
	for i := range o.Copy {
		c := &o.Copy[i]
		alias, from, ok := strings.Cut(strings.TrimPrefix(c.From, "@"), "/")
		if !ok || !strings.HasPrefix(c.From, "@") {
			return source.Artifact{}, invalidSpec(fmt.Sprintf("copy[%d].from", i), fmt.Errorf("%q does not name a source and a path", c.From), "write it as @alias/path")
		}
		a, ok := sources[alias]
		if !ok {
			return source.Artifact{}, unknownAlias(fmt.Sprintf("copy[%d].from", i), alias)
		}
		to, ok := strings.CutPrefix(c.To, "@artifact/")
		if !ok {
			return source.Artifact{}, invalidSpec(fmt.Sprintf("copy[%d].to", i), fmt.Errorf("%q is no path in the artifact", c.To), "write it as @artifact/path")
		}
		err := b.Copy(a, compose.Copy{From: from, To: to, Exclude: c.Exclude, Strategy: compose.Strategy(c.Strategy)})
		if err != nil {
			return source.Artifact{}, fmt.Errorf("copy[%d] from source %q: %w", i, alias, err)
		}
	}
	tree := b.Tree()
	digest, err := tree.Digest()
	if err != nil {
		return source.Artifact{}, err
	}
	artifact := source.Artifact{Revision: "latest@sha256:" + strings.TrimPrefix(digest, "tree:"), Digest: digest, Tree: tree}
	if alias, ok := strings.CutPrefix(o.Revision, "@"); ok {
		artifact.Revision = sources[alias].Revision
	}
	if alias, ok := strings.CutPrefix(o.OriginRevision, "@"); ok {
		artifact.Metadata = map[string]string{swapi.ArtifactOriginRevisionAnnotation: originOf(sources[alias])}
	}
	return artifact, nil
}

// originOf returns the revision of what an artifact comes from in the end.
func originOf(a source.Artifact) string {
	if origin := a.OriginRevision(); origin != "" {
		return origin
	}
	return a.Revision
}
