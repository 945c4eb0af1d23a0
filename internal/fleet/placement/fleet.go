package placement

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// Fleet is what the assignments of one namespace's clusters are made from. It is read
// only once it is made, and may be used by many goroutines.
type Fleet struct {
	// sources are those of the namespace.
	sources  map[SourceKey]Source
	compiler *template.Compiler
	placed   []*placed
}

// placed is a Placement as far as it says the same for all clusters.
type placed struct {
	*v1alpha1.Placement
	selector labels.Selector
	// overrides have the selectors of the Placement's overrides, in their order.
	overrides []labels.Selector
	units     []pattern
	// broken is why nothing can be made of it for any cluster.
	broken error
}

// New prepares a fleet. What is wrong with a Placement is told by Broken and by each Assign
// of a cluster that it is for; the others are not held up.
func New(placements []*v1alpha1.Placement, sources map[SourceKey]Source, compiler *template.Compiler) *Fleet {
	f := &Fleet{sources: sources, compiler: compiler}
	for _, p := range placements {
		f.placed = append(f.placed, prepare(p))
	}
	slices.SortFunc(f.placed, func(a, b *placed) int { return cmp.Compare(a.Name, b.Name) })
	f.checkOrder()
	return f
}

func prepare(p *v1alpha1.Placement) *placed {
	out := &placed{Placement: p}
	if out.selector, out.broken = selectorOf(&p.Spec.Clusters, "spec.clusters"); out.broken != nil {
		return out
	}
	names := sets.New[string]()
	for i := range p.Spec.Units {
		t, err := patternOf(&p.Spec.Units[i], i)
		if err != nil {
			out.broken = err
			return out
		}
		names.Insert(t.name)
		out.units = append(out.units, t)
	}
	for i, o := range p.Spec.Overrides {
		selector, err := overrideSelector(o, i)
		if err == nil && !names.Has(o.Unit) {
			err = invalid(fmt.Sprintf("spec.overrides[%d].unit", i), fmt.Errorf("there is no unit %q", o.Unit), "name one of spec.units")
		}
		if err != nil {
			out.broken = err
			return out
		}
		out.overrides = append(out.overrides, selector)
	}
	return out
}

func overrideSelector(o v1alpha1.PlacementOverride, i int) (labels.Selector, error) {
	if o.Clusters == nil {
		return labels.Nothing(), nil
	}
	return selectorOf(o.Clusters, fmt.Sprintf("spec.overrides[%d].clusters", i))
}

func selectorOf(s *metav1.LabelSelector, field string) (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, invalid(field, err, "correct the selector")
	}
	return selector, nil
}

// checkOrder marks the Placements that wait for each other in a circle. One that is not there is
// no mistake: it may come.
func (f *Fleet) checkOrder() {
	byName := map[string]*placed{}
	for _, p := range f.placed {
		byName[p.Name] = p
	}
	for _, p := range f.placed {
		if p.broken == nil && reaches(byName, p.Name, p.Name, sets.New[string]()) {
			p.broken = &failure.Error{Op: "order", Object: "spec.dependsOn", Kind: failure.Invalid, Err: ErrCycle,
				Remedy: "take one of the Placements out of the circle"}
		}
	}
}

// reaches reports whether one leads to the other by dependsOn.
func reaches(all map[string]*placed, from, to string, seen sets.Set[string]) bool {
	p := all[from]
	if p == nil || seen.Has(from) {
		return false
	}
	seen.Insert(from)
	for _, d := range p.Spec.DependsOn {
		if d.Name == to || reaches(all, d.Name, to, seen) {
			return true
		}
	}
	return false
}

// Broken says why nothing can be made of a Placement for any cluster, and nil where that is not so.
func (f *Fleet) Broken(placement string) error {
	if p := f.find(placement); p != nil {
		return p.broken
	}
	return nil
}

// Selects reports whether a Placement is for a cluster, by its labels.
func (f *Fleet) Selects(placement string, cluster *v1alpha1.FleetCluster) bool {
	p := f.find(placement)
	return p != nil && p.selects(cluster)
}

func (p *placed) selects(cluster *v1alpha1.FleetCluster) bool {
	return p.selector != nil && p.selector.Matches(labels.Set(cluster.Labels))
}

func (f *Fleet) find(name string) *placed {
	i, ok := slices.BinarySearchFunc(f.placed, name, func(p *placed, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return nil
	}
	return f.placed[i]
}

// overriding returns the patches of a unit for a cluster, in their order.
func (p *placed) overriding(unit string, cluster *v1alpha1.FleetCluster) []v1alpha1.PlacementOverride {
	var all []v1alpha1.PlacementOverride
	for i, o := range p.Spec.Overrides {
		if o.Unit == unit && (slices.Contains(o.ClusterNames, cluster.Name) || p.overrides[i].Matches(labels.Set(cluster.Labels))) {
			all = append(all, o)
		}
	}
	return all
}
