package hub

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// total is what came of all members of a Placement.
type total struct {
	// selected is how many clusters it is for, on on how many it is, and ready on how many all of it is ready.
	selected, on, ready int
	// pending are clusters that were not looked at since the Placement is what it is, and waiting
	// those that do not report it as ready yet.
	pending, waiting []string
	// problems are why it is not on clusters as it should be, and failing what failed there.
	problems, failing []v1alpha1.PlacementFailure
	// cause is the first problem.
	cause error
}

func sum(name string, members []member) total {
	var t total
	for i := range members {
		m := &members[i]
		if m.selected {
			t.selected++
		}
		switch {
		case m.problem != nil:
			if t.cause == nil {
				t.cause = m.problem
			}
			t.problems = append(t.problems, v1alpha1.PlacementFailure{Cluster: m.name, Message: m.problem.Error()})
		case m.pending:
			t.pending = append(t.pending, m.name)
		}
		if m.units > 0 {
			t.on++
			t.judge(name, m)
		}
	}
	return t
}

// judge adds what a member reports of the units.
func (t *total) judge(placement string, m *member) {
	before, ready := len(t.failing), 0
	if m.report.Problem != "" {
		t.failing = append(t.failing, v1alpha1.PlacementFailure{Cluster: m.name, Message: m.report.Problem})
	}
	for i := range m.report.Assigned {
		u := &m.report.Assigned[i]
		switch {
		case u.Placement != placement:
		case u.State == v1alpha1.UnitReady:
			ready++
		case u.State == v1alpha1.UnitFailed:
			t.failing = append(t.failing, v1alpha1.PlacementFailure{Cluster: m.name, Unit: u.Name, Message: cmp.Or(u.Message, u.Reason)})
		}
	}
	// Of units for which a report has no room only the count is known.
	counted := ready < m.units && m.report.Units.Total > 0 && m.report.Units.Ready == m.report.Units.Total
	switch {
	case len(t.failing) > before:
	case m.report.Assignment == m.digest && (ready >= m.units || counted):
		t.ready++
	default:
		t.waiting = append(t.waiting, m.name)
	}
}

// maxFailing is how many failures a status names, as its schema says.
const maxFailing = 10

// conclusion sets the status of a Placement.
func conclusion(p *v1alpha1.Placement, v view, t total) {
	s := &p.Status
	s.ObservedGeneration = p.Generation
	s.Clusters, s.ReadyClusters = int32(t.on), int32(t.ready) //nolint:gosec // there are not so many clusters
	all := slices.Concat(t.failing, t.problems)
	slices.SortStableFunc(all, func(a, b v1alpha1.PlacementFailure) int { return cmp.Compare(a.Cluster, b.Cluster) })
	s.Failing = all[:min(len(all), maxFailing):min(len(all), maxFailing)]
	if len(all) == 0 {
		s.Failing = nil
	}
	if at, ok := meta.ReconcileAnnotationValue(p.Annotations); ok {
		s.LastHandledReconcileAt = at
	}
	placed := placedCondition(p, v, t)
	ready := readyCondition(placed, t)
	for _, c := range []metav1.Condition{placed, ready} {
		c.ObservedGeneration = p.Generation
		apimeta.SetStatusCondition(&s.Conditions, c)
	}
}

func placedCondition(p *v1alpha1.Placement, v view, t total) metav1.Condition {
	not := func(reason, format string, args ...any) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.PlacedCondition, Status: metav1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	broken := v.fleet.Broken(p.Name)
	switch {
	case broken != nil:
		return not(reasonOf(broken), "%v", broken)
	case p.Spec.Suspend:
		return not(meta.SuspendedReason, "suspended: what is placed stays as it is")
	case v.approval != nil:
		return not(v1alpha1.AwaitingReason, "%s", awaiting(p, v.approval))
	case t.selected == 0:
		return not(v1alpha1.NoClusterReason, "no cluster of the namespace has the labels that spec.clusters asks for")
	case len(t.problems) > 0:
		return not(reasonOf(t.cause), "%s the units are not as they should be: %s", on(len(t.problems), t.selected), causes(t.problems))
	case len(t.pending) > 0:
		return not(v1alpha1.ProgressingReason, "the units are being placed on %s", list(t.pending, named))
	}
	return metav1.Condition{
		Type: v1alpha1.PlacedCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.PlacedReason,
		Message: "placed on " + plural(t.on, "cluster", "clusters"),
	}
}

func readyCondition(placed metav1.Condition, t total) metav1.Condition {
	ready := placed
	ready.Type = meta.ReadyCondition
	if placed.Status != metav1.ConditionTrue {
		return ready
	}
	clusters := map[string]bool{}
	for _, f := range t.failing {
		clusters[f.Cluster] = true
	}
	switch {
	case len(clusters) > 0:
		ready.Status, ready.Reason = metav1.ConditionFalse, v1alpha1.UnitsFailedReason
		ready.Message = fmt.Sprintf("units fail %s: %s", on(len(clusters), t.on), causes(t.failing))
	case len(t.waiting) > 0:
		ready.Status, ready.Reason = metav1.ConditionFalse, v1alpha1.ProgressingReason
		ready.Message = fmt.Sprintf("ready on %d of %s; waiting for %s", t.ready, plural(t.on, "cluster", "clusters"), list(t.waiting, named))
	default:
		ready.Reason, ready.Message = meta.SucceededReason, "ready on "+plural(t.on, "cluster", "clusters")
	}
	return ready
}

// reasonOf is the reason for an error of a Placement.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, placement.ErrSource):
		return v1alpha1.SourceNotReadyReason
	case errors.Is(err, placement.ErrTaken):
		return v1alpha1.ConflictReason
	case errors.Is(err, placement.ErrCycle):
		return v1alpha1.DependencyCycleReason
	default:
		return v1alpha1.InvalidUnitReason
	}
}

// on says on how many clusters something is so.
func on(n, of int) string {
	switch {
	case of == 1:
		return "on the only cluster"
	case n >= of:
		return "on all of " + plural(of, "cluster", "clusters")
	}
	return fmt.Sprintf("on %d of %s", n, plural(of, "cluster", "clusters"))
}

// causes says which clusters have which problem, those with the same one together.
func causes(all []v1alpha1.PlacementFailure) string {
	var order []string
	clusters := map[string][]string{}
	for _, f := range all {
		message := f.Message
		if f.Unit != "" {
			message = "unit " + f.Unit + ": " + message
		}
		if clusters[message] == nil {
			order = append(order, message)
		}
		clusters[message] = append(clusters[message], f.Cluster)
	}
	var lines []string
	for _, message := range order[:min(len(order), named)] {
		lines = append(lines, list(clusters[message], named)+": "+message)
	}
	if more := len(order) - named; more > 0 {
		lines = append(lines, plural(more, "other problem", "other problems"))
	}
	return strings.Join(lines, "; ")
}

// list names some and counts the rest.
func list(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// most is how many clusters are named to whom has to approve.
const most = 20

// awaiting says what has to be approved, and how.
func awaiting(p *v1alpha1.Placement, e *placement.Emptying) string {
	what := fmt.Sprintf("%d of the %d clusters", len(e.Clusters), e.Of)
	if e.Of == 1 {
		what = "the only cluster"
	}
	return fmt.Sprintf("this would leave %s that it is on: %s; if that is meant: bowline approve placement %s -n %s, or annotate it with %s=%s",
		what, list(e.Clusters, most), p.Name, p.Namespace, v1alpha1.ApprovedPlanAnnotation, e.Digest)
}
