package link

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// The bounds of what a report says of the clusters below, as its definition has them.
const (
	mostMembers = 20
	mostWhy     = 256
)

// members are the clusters that this one manages, and those below them, as far as there is room: what is not ready comes
// first, because that is what people look for from above, and what is near before what is deep.
func members(clusters []v1alpha1.FleetCluster) []v1alpha1.FleetMember {
	var all []v1alpha1.FleetMember
	for i := range clusters {
		c := &clusters[i]
		all = append(all, memberOf(c))
		if c.Status.Fleet == nil {
			continue
		}
		for _, m := range c.Status.Fleet.Members {
			m.Name = c.Name + "/" + m.Name
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b v1alpha1.FleetMember) int {
		return cmp.Or(cmp.Compare(rank(a.Ready), rank(b.Ready)), cmp.Compare(strings.Count(a.Name, "/"), strings.Count(b.Name, "/")),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	return all[:min(len(all), mostMembers):min(len(all), mostMembers)]
}

func rank(ready bool) int {
	if ready {
		return 1
	}
	return 0
}

func memberOf(c *v1alpha1.FleetCluster) v1alpha1.FleetMember {
	m := v1alpha1.FleetMember{Name: c.Name, Namespace: c.Namespace, Phase: c.Status.Phase}
	if c.Status.Units != nil {
		m.Units = c.Status.Units.Summary
	}
	ready := apimeta.FindStatusCondition(c.Status.Conditions, meta.ReadyCondition)
	m.Ready = apimeta.IsStatusConditionTrue(c.Status.Conditions, meta.ReadyCondition)
	if ready != nil && !m.Ready {
		m.Message = cut(ready.Message, mostWhy)
	}
	return m
}
