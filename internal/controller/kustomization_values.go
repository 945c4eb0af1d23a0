package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
)

// UnitOptions says how Kustomizations are read as units. The zero value allows
// the least.
type UnitOptions struct {
	Budget           plan.Budget
	AllowRemoteBases bool
	// LenientSubstitution replaces a variable that has neither a value nor a
	// default with nothing, instead of failing.
	LenientSubstitution bool
	// Decryption may be nil where nothing is decrypted.
	Decryption *Decryption
	// Wake is called for a unit whose build could not wait for a key service that has
	// answered now; it may be nil.
	Wake func(types.NamespacedName)
}

// Prepare reads a Kustomization as a unit, with all that its build needs besides
// the source: the values that postBuild.substituteFrom names and the keys of decryption are
// read with the reader. Whoever delivers, previews or compares a unit prepares it here, so that
// all of them build the same. Fields that this version does not act on are an error
// of kind failure.Unsupported.
func Prepare(ctx context.Context, reader client.Reader, k *kustomizev1.Kustomization, o UnitOptions) (pipeline.Unit, error) {
	unit, err := UnitOf(k, o.Budget, o.AllowRemoteBases)
	if err != nil {
		return pipeline.Unit{Name: client.ObjectKeyFromObject(k)}, err
	}
	unit.Recipe.StrictSubstitution = !o.LenientSubstitution
	values, err := valuesOf(ctx, reader, k)
	if err != nil {
		return unit, err
	}
	if len(values.vars) > 0 {
		unit.Recipe = unit.Recipe.WithVariables(values.vars, values.origins)
	}
	unit.Secrets = values.secrets
	if o.Decryption == nil {
		return unit, nil
	}
	wake := func() {
		if o.Wake != nil {
			o.Wake(unit.Name)
		}
	}
	return unit, o.Decryption.Prepare(ctx, k, reader, &unit.Recipe, wake)
}

// values are the variables that objects on the cluster hold.
type values struct {
	vars map[string]string
	// origins names the object that each comes from.
	origins map[string]string
	// secrets are the values that no message may hold.
	secrets []string
}

// valuesOf reads what postBuild.substituteFrom names, in its order: a later object
// overrides an earlier one. One that is optional may be absent.
func valuesOf(ctx context.Context, reader client.Reader, k *kustomizev1.Kustomization) (values, error) {
	if k.Spec.PostBuild == nil {
		return values{}, nil
	}
	all := values{vars: map[string]string{}, origins: map[string]string{}}
	for i, from := range k.Spec.PostBuild.SubstituteFrom {
		ref := reference{from.Kind, types.NamespacedName{Namespace: k.Namespace, Name: from.Name}}
		field := fmt.Sprintf("spec.postBuild.substituteFrom[%d]", i)
		data, _, err := readData(ctx, reader, ref, field)
		if errors.Is(err, failure.Of(failure.NotFound)) {
			if from.Optional {
				continue
			}
			return values{}, &failure.Error{Op: "read variables of", Kind: failure.NotFound, Object: field,
				Err: fmt.Errorf("%s does not exist", ref), Remedy: "create it, correct " + field + ", or set its optional: true"}
		}
		if err != nil {
			return values{}, fmt.Errorf("%s: %w", field, err)
		}
		for name, value := range data {
			all.vars[name], all.origins[name] = string(value), ref.String()
			if ref.Kind == kindSecret {
				all.secrets = append(all.secrets, string(value))
			}
		}
	}
	slices.Sort(all.secrets)
	return all, nil
}
