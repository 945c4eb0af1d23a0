package placement

import (
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// Emptying is a Placement that leaves so many clusters at once that somebody should have a look first.
type Emptying struct {
	// Clusters are those that it would leave, in the order of their names.
	Clusters []string
	// Of is on how many clusters it is now.
	Of int
	// Digest approves leaving exactly these.
	Digest string
}

// Emptying returns what a Placement would leave, and whether that has to be approved: when it is more than
// half of the clusters that it is on, and at least two, or when there is no cluster left that it is for. clusters are all of the fleet that are not being deleted,
// and current what each of them has, by name.
func (f *Fleet) Emptying(placement string, clusters []*v1alpha1.FleetCluster, current func(cluster string) *v1alpha1.ClusterAssignmentSpec) (Emptying, bool) {
	p := f.find(placement)
	if p == nil || p.broken != nil || p.Spec.Suspend {
		return Emptying{}, false
	}
	var e Emptying
	selected := 0
	for _, c := range clusters {
		if p.selects(c) {
			selected++
		}
		spec := current(c.Name)
		if spec == nil || !slices.ContainsFunc(spec.Placements, func(g v1alpha1.AssignedPlacement) bool { return g.Name == placement }) {
			continue
		}
		e.Of++
		if !p.selects(c) {
			e.Clusters = append(e.Clusters, c.Name)
		}
	}
	slices.Sort(e.Clusters)
	e.Digest = "sha256:" + hash([]byte(placement+"\n"+strings.Join(e.Clusters, "\n")))
	most := len(e.Clusters) >= 2 && 2*len(e.Clusters) > e.Of
	return e, most || len(e.Clusters) > 0 && selected == 0
}
