package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// placement judges a Placement among those of its namespace.
func (j *judge) placement(ctx context.Context, _, p *v1alpha1.Placement) (verdict, error) {
	var others v1alpha1.PlacementList
	if err := j.client.List(ctx, &others, client.InNamespace(p.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return verdict{}, fmt.Errorf("read the Placements of %s: %w", p.Namespace, err)
	}
	all := []*v1alpha1.Placement{p}
	for i := range others.Items {
		if others.Items[i].Name != p.Name {
			all = append(all, &others.Items[i])
		}
	}
	problems, warnings := CheckPlacement(j.compiler, p, all) //nolint:contextcheck // it only compiles
	return verdict{problems: problems, warnings: warnings}, ctx.Err()
}

// CheckPlacement returns all that is wrong with a Placement, of which all are those of its namespace, and what only
// may be.
func CheckPlacement(compiler *template.Compiler, p *v1alpha1.Placement, all []*v1alpha1.Placement) (problems template.FieldErrors, warnings []string) {
	fleet := placement.New(all, nil, compiler)
	rivals := fleet.Rivals(p.Name)
	for _, name := range slices.Sorted(maps.Keys(rivals)) {
		warnings = append(warnings, fmt.Sprintf("Placement %s has %s as well: a cluster that both select gets it from one of them only", name, rivals[name]))
	}
	return fleet.Check(p.Name), warnings
}
