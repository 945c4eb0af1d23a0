package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
)

// valid says what of the spec cannot be meant, or may not be asked for.
func (r *generatorRun) valid() error {
	aliases := map[string]bool{}
	for i := range r.g.Spec.Sources {
		ref := &r.g.Spec.Sources[i]
		field := fmt.Sprintf("spec.sources[%d]", i)
		if aliases[ref.Alias] {
			return invalidSpec(field, fmt.Errorf("the alias %q is taken by another source", ref.Alias), "give each source an alias of its own")
		}
		aliases[ref.Alias] = true
		key := generatorSource(r.g, ref)
		if err := r.tenancy.MayRefer(r.g.Namespace, field, key.String(), key.Namespace); err != nil {
			return err
		}
		if !slices.Contains(sourceKinds, key.Kind) && key.Kind != sourcev1.HelmChartKind {
			return unsupported([]string{field + ".kind " + key.Kind})
		}
		if cycle := r.cycle(key, []types.NamespacedName{r.name}); cycle != "" {
			return invalidSpec(field, fmt.Errorf("it is made of what it makes: %s", cycle), "take this source out")
		}
	}
	names := map[string]bool{}
	for i := range r.g.Spec.OutputArtifacts {
		if err := r.validOutput(&r.g.Spec.OutputArtifacts[i], fmt.Sprintf("spec.artifacts[%d]", i), aliases, names); err != nil {
			return err
		}
	}
	return nil
}

func (r *generatorRun) validOutput(o *swapi.OutputArtifact, field string, aliases, names map[string]bool) error {
	if names[o.Name] {
		return invalidSpec(field, fmt.Errorf("the name %q is taken by another artifact", o.Name), "give each artifact a name of its own")
	}
	names[o.Name] = true
	if problems := validation.IsDNS1123Subdomain(o.Name); r.g.Spec.PathPattern == "" && len(problems) > 0 {
		return invalidSpec(field+".name", fmt.Errorf("%q cannot be the name of an object: %s", o.Name, problems[0]), "correct it")
	}
	for name, ref := range map[string]string{"revision": o.Revision, "originRevision": o.OriginRevision} {
		if alias := strings.TrimPrefix(ref, "@"); ref != "" && !aliases[alias] {
			return unknownAlias(field+"."+name, alias)
		}
	}
	return nil
}

func unknownAlias(field, alias string) error {
	return invalidSpec(field, fmt.Errorf("there is no source with the alias %q", alias), "name one of spec.sources")
}

func invalidSpec(field string, err error, remedy string) error {
	return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid, Err: err, Remedy: remedy}
}

// cycle spells out how a source is made of what this generator makes, and returns
// "" when it is not.
func (r *generatorRun) cycle(from sourceKey, path []types.NamespacedName) string {
	if from.Kind != sourcev1.ExternalArtifactKind {
		return ""
	}
	by, ok := r.handouts.of(from.NamespacedName)
	if !ok || by.Kind != swapi.ArtifactGeneratorKind {
		return ""
	}
	maker := by.NamespacedName
	if slices.Contains(path, maker) {
		names := make([]string, 0, len(path)+1)
		for _, name := range append(slices.Clone(path), maker) {
			names = append(names, name.String())
		}
		return strings.Join(names, " → ")
	}
	for _, next := range r.ingredients(maker) {
		if cycle := r.cycle(next, append(slices.Clone(path), maker)); cycle != "" {
			return cycle
		}
	}
	return ""
}

// ingredients returns what a generator was made of when it last ran.
func (r *artifactGenerators) ingredients(name types.NamespacedName) []sourceKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.made[name]; m != nil {
		return m.sources
	}
	return nil
}

// reasonOfSpec returns the reason that the toolkit's users know.
func reasonOfSpec(err error) string {
	switch {
	case errors.Is(err, failure.Of(failure.Refused)):
		return swapi.AccessDeniedReason
	case errors.Is(err, failure.Of(failure.Unsupported)):
		return report.ReasonNotSupported
	case errors.Is(err, failure.Of(failure.Invalid)):
		return swapi.ValidationFailedReason
	default:
		return meta.ReconciliationFailedReason
	}
}
