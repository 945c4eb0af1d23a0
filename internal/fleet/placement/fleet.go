package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// Fleet is what the assignments of one namespace's clusters are made from. It says the same
// once it is made, and may be used by many goroutines.
type Fleet struct {
	// sources are those of the namespace.
	sources  map[SourceKey]Source
	compiler *template.Compiler
	placed   []*placed
	common   common
}

// placed is a Placement as far as it says the same for all clusters.
type placed struct {
	*v1alpha1.Placement
	selector labels.Selector
	// overrides have the selectors of the Placement's overrides, in their order.
	overrides []labels.Selector
	units     []pattern
	// broken is why nothing can be made of it for any cluster, all problems in one.
	broken   error
	problems []error
}

// wrong notes something that is wrong; nil is nothing.
func (p *placed) wrong(err error) {
	switch {
	case err == nil:
		return
	case p.broken == nil:
		p.broken = err
	default:
		p.broken = fmt.Errorf("%w; %w", p.broken, err)
	}
	p.problems = append(p.problems, err)
}

// New prepares a fleet. What is wrong with a Placement is told by Broken and by each Assign
// of a cluster that it is for; the others are not held up.
func New(placements []*v1alpha1.Placement, sources map[SourceKey]Source, compiler *template.Compiler) *Fleet {
	f := &Fleet{sources: sources, compiler: compiler, common: common{pins: map[SourceKey]pinned{}, units: map[string]made{}}}
	for _, p := range placements {
		f.placed = append(f.placed, prepare(p))
	}
	slices.SortFunc(f.placed, func(a, b *placed) int { return cmp.Compare(a.Name, b.Name) })
	f.checkOrder()
	return f
}

func prepare(p *v1alpha1.Placement) *placed {
	out := &placed{Placement: p}
	selector, err := selectorOf(&p.Spec.Clusters, "spec.clusters")
	out.selector = selector
	out.wrong(err)
	if says := validation.IsDNS1123Label(namespaceOf(p.Spec.Namespace)); len(says) > 0 {
		out.wrong(invalid("spec.namespace", fmt.Errorf("%q is no name of a namespace", p.Spec.Namespace), "correct it"))
	}
	names := sets.New[string]()
	for i := range p.Spec.Units {
		t, err := patternOf(&p.Spec.Units[i], i)
		if err == nil && names.Has(t.name) {
			err = invalid(t.at+".name", fmt.Errorf("there is a unit %q already", t.name), "give it another name")
		}
		names.Insert(t.name)
		if out.wrong(err); err == nil {
			t.identify(p)
			out.units = append(out.units, t)
		}
	}
	for i, o := range p.Spec.Overrides {
		selector, err := overrideSelector(o, i)
		if err == nil && !names.Has(o.Unit) {
			err = invalid(fmt.Sprintf("spec.overrides[%d].unit", i), fmt.Errorf("there is no unit %q", o.Unit), "name one of spec.units")
		}
		out.wrong(err)
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
		if circle := leads(byName, p.Name, p.Name, sets.New[string]()); circle != nil {
			p.wrong(&failure.Error{Op: "order", Object: "spec.dependsOn", Kind: failure.Invalid,
				Err:    fmt.Errorf("%w: %s", ErrCycle, strings.Join(append(circle, p.Name), " → ")),
				Remedy: "take one of the Placements out of the circle"})
		}
	}
}

// leads returns the way by dependsOn from one to another, without its end; nil where there is none.
func leads(all map[string]*placed, from, to string, seen sets.Set[string]) []string {
	p := all[from]
	if p == nil || seen.Has(from) {
		return nil
	}
	seen.Insert(from)
	for _, d := range p.Spec.DependsOn {
		if d.Name == to {
			return []string{from}
		}
		if rest := leads(all, d.Name, to, seen); rest != nil {
			return append([]string{from}, rest...)
		}
	}
	return nil
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
