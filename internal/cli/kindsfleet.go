package cli

import (
	"fmt"
	"slices"
	"strings"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apilabels "k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// fleetKinds are the kinds of a hub that people list.
func fleetKinds() []kind { return []kind{fleetClusterKind(), placementKind()} }

func fleetClusterKind() kind {
	k := kindOf("cluster", fleetv1.GroupVersion.WithKind(fleetv1.FleetClusterKind), &fleetv1.FleetCluster{}, &fleetv1.FleetClusterList{}, func(c *fleetv1.FleetCluster) state {
		return state{suspended: c.Spec.Suspend, observed: c.Status.ObservedGeneration, conditions: c.Status.Conditions, unasked: true,
			outcome: "is ready, " + rollUpWord(c)}
	}, "clusters", "cluster", "fleetclusters", "fc")
	k.columns = []column{
		{title: "PHASE", text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return phaseCell(c.Status.Phase) })},
		{title: "PROVIDER", text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(orDash(c.Status.Provider)) })},
		{title: "VERSION", text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(orDash(c.Status.KubernetesVersion)) })},
		{title: "NODES", text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(fmt.Sprint(c.Status.Nodes)) })},
		{title: "UNITS", text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(unitsWord(c.Status.Units)) })},
		{title: "FLEET", text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(fleetWord(c.Status.Fleet)) })},
		{title: "AGENT", text: ofCluster(func(v view, c *fleetv1.FleetCluster) cell { return plain(agentWord(v, c)) })},
		{title: "LAST SEEN", text: ofCluster(func(v view, c *fleetv1.FleetCluster) cell { return plain(seenWord(v, c)) })},
		{title: "AGE", text: ageColumn},
		{title: "LABELS", wide: true, text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(orDash(apilabels.FormatLabels(ownLabels(c)))) })},
		{title: "ENDPOINT", wide: true, text: ofCluster(func(_ view, c *fleetv1.FleetCluster) cell { return plain(orDash(c.Status.Endpoint)) })},
		messageColumn(),
	}
	return k
}

// ofCluster makes a column of a FleetCluster one of any object.
func ofCluster(of func(view, *fleetv1.FleetCluster) cell) func(view, client.Object) cell {
	return func(v view, o client.Object) cell {
		if c, ok := o.(*fleetv1.FleetCluster); ok {
			return of(v, c)
		}
		return cell{}
	}
}

func orDash(s string) string {
	if s == "" || s == "<none>" {
		return "-"
	}
	return s
}

// ownLabels are the labels that people gave a cluster: those of the engine say who delivered it.
func ownLabels(c *fleetv1.FleetCluster) map[string]string {
	out := map[string]string{}
	for key, value := range c.Labels {
		domain, _, prefixed := strings.Cut(key, "/")
		if !prefixed || !strings.HasSuffix(domain, "toolkit.fluxcd.io") && !strings.HasSuffix(domain, "bowline.dev") {
			out[key] = value
		}
	}
	return out
}

func phaseCell(p fleetv1.Phase) cell {
	switch p {
	case "":
		return cell{text: string(fleetv1.PhasePending), colour: yellow}
	case fleetv1.PhaseReady:
		return cell{text: string(p), colour: green}
	case fleetv1.PhaseFailing, fleetv1.PhaseUnreachable:
		return cell{text: string(p), colour: red}
	default:
		return cell{text: string(p), colour: yellow}
	}
}

// unitsWord says how many units there are, and in the fewest words what is wrong with the others.
func unitsWord(u *fleetv1.UnitCounts) string {
	if u == nil {
		return "-"
	}
	out := fmt.Sprintf("%d/%d", u.Ready, u.Total)
	for _, part := range []struct {
		n    int32
		word string
	}{{u.Failed, "failed"}, {u.Drifted, "drifted"}} {
		if part.n > 0 {
			out += fmt.Sprintf(" %d %s", part.n, part.word)
		}
	}
	return out
}

// fleetWord says how many of the clusters are ready that a cluster manages, at whatever depth.
func fleetWord(f *fleetv1.FleetCounts) string {
	if f == nil {
		return "-"
	}
	out := fmt.Sprintf("%d/%d", f.Ready, f.Clusters)
	if f.Unreachable > 0 {
		out += fmt.Sprintf(" %d unreachable", f.Unreachable)
	}
	return out
}

// rollUpWord says of a cluster how its units are, and the clusters below it.
func rollUpWord(c *fleetv1.FleetCluster) string {
	out := "units: " + unitsWord(c.Status.Units)
	if c.Status.Fleet != nil {
		out += ", clusters below: " + fleetWord(c.Status.Fleet)
	}
	return out
}

// agentWord says where the engine of a cluster runs, and with room for it which version.
func agentWord(v view, c *fleetv1.FleetCluster) string {
	mode := string(c.Spec.Agent.Mode)
	if mode == "" {
		mode = string(fleetv1.AgentPull)
	}
	if v.wide && c.Status.AgentVersion != "" {
		return mode + " " + c.Status.AgentVersion
	}
	return mode
}

// seenWord says since when a cluster has not been heard of. One that is reachable is heard of all the time; the status
// says so to the minute only, and is not written for nothing else.
func seenWord(v view, c *fleetv1.FleetCluster) string {
	switch {
	case c.Status.LastSeen == nil:
		return "-"
	case apimeta.IsStatusConditionTrue(c.Status.Conditions, fleetv1.ReachableCondition):
		return "now"
	}
	return age(v.now(), c.Status.LastSeen.Time)
}

func placementKind() kind {
	k := kindOf("placement", fleetv1.GroupVersion.WithKind(fleetv1.PlacementKind), &fleetv1.Placement{}, &fleetv1.PlacementList{}, func(p *fleetv1.Placement) state {
		return state{suspended: p.Spec.Suspend, handled: p.Status.LastHandledReconcileAt, observed: p.Status.ObservedGeneration, conditions: p.Status.Conditions,
			outcome: fmt.Sprintf("is ready on %d of %d clusters", p.Status.ReadyClusters, p.Status.Clusters)}
	}, "placements", "pl")
	k.columns = []column{
		{title: "CLUSTERS", text: ofPlacement(func(p *fleetv1.Placement) string {
			return fmt.Sprintf("%d/%d", p.Status.ReadyClusters, p.Status.Clusters)
		})},
		{title: "UNITS", text: ofPlacement(func(p *fleetv1.Placement) string { return fmt.Sprint(len(p.Spec.Units)) })},
		suspendedColumn(), readyColumn(), {title: "AGE", text: ageColumn},
		{title: "SELECTOR", wide: true, text: ofPlacement(func(p *fleetv1.Placement) string { return selectorWord(&p.Spec.Clusters) })},
		{title: "DEPENDS ON", wide: true, text: ofPlacement(func(p *fleetv1.Placement) string { return orDash(dependsWord(p)) })},
		messageColumn(),
	}
	return k
}

func ofPlacement(of func(*fleetv1.Placement) string) func(view, client.Object) cell {
	return func(_ view, o client.Object) cell {
		if p, ok := o.(*fleetv1.Placement); ok {
			return plain(of(p))
		}
		return cell{}
	}
}

func selectorWord(s *metav1.LabelSelector) string {
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return "all clusters"
	}
	return metav1.FormatLabelSelector(s)
}

func dependsWord(p *fleetv1.Placement) string {
	names := make([]string, 0, len(p.Spec.DependsOn))
	for _, d := range p.Spec.DependsOn {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}
