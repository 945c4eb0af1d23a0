package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/provision"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// suspended is said of a unit that nobody looks after at the time.
const suspended = "Suspended"

// readClusterTree reads what a cluster of the fleet is built from, and what is placed on it.
func (c *cluster) readClusterTree(ctx context.Context, k kind, name string) (*node, error) {
	of, err := getAs[*fleetv1.FleetCluster](ctx, c, k, name)
	if err != nil {
		return nil, err
	}
	n := nodeOf(fleetID(k.gvk.Kind, of.Namespace, name), k.gvk.GroupVersion().String())
	n.Health, n.Message = phaseHealth(of.Status.Phase), clusterMessage(k, of)
	if of.Spec.Template != nil {
		unit, err := c.readTree(ctx, kustomizationKind(), provision.UnitName(name))
		switch {
		case err == nil:
			n.Objects = append(n.Objects, unit)
		case failure.KindOf(err) != failure.NotFound:
			return nil, err
		}
	}
	placed, err := c.readAssignment(ctx, client.ObjectKeyFromObject(of))
	if placed != nil {
		n.Objects = append(n.Objects, placed)
	}
	n.Objects = append(n.Objects, memberNodes(of.Status.Fleet)...)
	return n, err
}

// memberNodes are the clusters that a cluster manages, as it reported them.
func memberNodes(fleet *fleetv1.FleetCounts) (roots []*node) {
	if fleet == nil {
		return nil
	}
	all := slices.Clone(fleet.Members)
	slices.SortFunc(all, func(a, b fleetv1.FleetMember) int { return cmp.Compare(a.Name, b.Name) }) // what is above comes first
	byName := map[string]*node{}
	for _, m := range all {
		above, name := "", m.Name
		if i := strings.LastIndex(m.Name, "/"); i >= 0 {
			above, name = m.Name[:i], m.Name[i+1:]
		}
		parent := byName[above]
		if parent == nil {
			name = m.Name
		}
		n := nodeOf(fleetID(fleetv1.FleetClusterKind, m.Namespace, name), fleetv1.GroupVersion.String())
		n.Health, n.Message = phaseHealth(m.Phase), cmp.Or(line(m.Message), "units: "+orDash(m.Units))
		byName[m.Name] = n
		if parent == nil {
			roots = append(roots, n)
		} else {
			parent.Objects = append(parent.Objects, n)
		}
	}
	if more := int(fleet.Clusters) - len(all); more > 0 {
		n := nodeOf(fleetID(fleetv1.FleetClusterKind, "", fmt.Sprintf("and %d more", more)), fleetv1.GroupVersion.String())
		n.Health = health.Unknown.String()
		roots = append(roots, n)
	}
	return roots
}

func fleetID(kind, namespace, name string) object.ID {
	return object.ID{Group: fleetv1.GroupVersion.Group, Kind: kind, Namespace: namespace, Name: name}
}

// phaseHealth is the phase of a cluster as a word of health.
func phaseHealth(p fleetv1.Phase) string {
	switch p {
	case fleetv1.PhaseReady:
		return health.Current.String()
	case fleetv1.PhaseFailing, fleetv1.PhaseUnreachable:
		return health.Failed.String()
	case fleetv1.PhaseDeleting:
		return health.Terminating.String()
	default:
		return health.InProgress.String()
	}
}

func clusterMessage(k kind, of *fleetv1.FleetCluster) string {
	ready := k.state(of).ready()
	if ready.Status == metav1.ConditionTrue {
		return rollUpWord(of)
	}
	return line(ready.Message)
}

// readAssignment reads what is placed on a cluster, with the states that it reported; nil where nothing is yet.
func (c *cluster) readAssignment(ctx context.Context, key client.ObjectKey) (*node, error) {
	var assignment fleetv1.ClusterAssignment
	if err := c.Get(ctx, key, &assignment); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	var report fleetv1.ClusterReport
	if err := c.Get(ctx, key, &report); err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	n := nodeOf(fleetID(fleetv1.ClusterAssignmentKind, key.Namespace, key.Name), fleetv1.GroupVersion.String())
	n.Health, n.Message = carriedOut(&assignment, &report.Status)
	reported := map[object.ID]fleetv1.UnitReport{}
	for _, u := range report.Status.Assigned {
		reported[unitID(u.Kind, u.Namespace, u.Name)] = u
	}
	n.Objects = unitNodes(assignment.Spec.Sync, reported)
	for _, p := range assignment.Spec.Placements {
		of := nodeOf(fleetID(fleetv1.PlacementKind, key.Namespace, p.Name), fleetv1.GroupVersion.String())
		of.Objects = unitNodes(p.Units, reported)
		of.sum()
		n.Objects = append(n.Objects, of)
	}
	return n, nil
}

// carriedOut says whether the cluster works on what it was given last.
func carriedOut(a *fleetv1.ClusterAssignment, r *fleetv1.ClusterReportStatus) (word, message string) {
	switch {
	case r.Problem != "":
		return health.Failed.String(), line(r.Problem)
	case r.Assignment == "":
		return health.InProgress.String(), "the cluster has not reported yet"
	case r.Assignment != a.Spec.Digest:
		return health.InProgress.String(), "the cluster has not carried out its newest assignment yet"
	}
	return health.Current.String(), fmt.Sprintf("units: %d", a.Spec.UnitCount)
}

func unitID(kind, namespace, name string) object.ID {
	return object.ID{Group: unitGVK(kind).Group, Kind: kind, Namespace: namespace, Name: name}
}

// unitGVK is the kind of a unit by its name.
func unitGVK(name string) schema.GroupVersionKind {
	if k := helmReleaseKind().gvk; name == k.Kind {
		return k
	}
	return kustomizationKind().gvk
}

func unitNodes(units []fleetv1.AssignedUnit, reported map[object.ID]fleetv1.UnitReport) []*node {
	out := make([]*node, 0, len(units))
	for _, u := range units {
		id := unitID(u.Kind, u.Namespace, u.Name)
		n := nodeOf(id, unitGVK(u.Kind).GroupVersion().String())
		n.Health, n.Message = health.Unknown.String(), "the cluster has not reported it"
		if r, ok := reported[id]; ok {
			n.Health, n.Message = unitHealth(r.State), line(cmp.Or(r.Message, shortRevision(r.Revision)))
		}
		out = append(out, n)
	}
	return out
}

func unitHealth(s fleetv1.UnitState) string {
	switch s {
	case fleetv1.UnitReady:
		return health.Current.String()
	case fleetv1.UnitFailed:
		return health.Failed.String()
	case fleetv1.UnitSuspended:
		return suspended
	default:
		return health.InProgress.String()
	}
}

// sum gives a node the worst health of those below it, and counts them.
func (n *node) sum() {
	counts := map[string]int{}
	for _, child := range n.Objects {
		counts[child.Health]++
	}
	n.Health = health.Current.String()
	for _, word := range []string{health.Failed.String(), health.InProgress.String(), health.Unknown.String()} {
		if counts[word] > 0 {
			n.Health = word
			break
		}
	}
	n.Message = fmt.Sprintf("units: %d/%d", counts[health.Current.String()], len(n.Objects))
}
