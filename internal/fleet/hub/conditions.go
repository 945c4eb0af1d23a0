package hub

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// named is how many things a message names before it counts the rest.
const named = 3

// unitsReady is the condition UnitsReady that a report makes true or not.
func unitsReady(report *v1alpha1.ClusterReportStatus, s state) metav1.Condition {
	u := report.Units
	not := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.UnitsReadyCondition, Status: status, Reason: reason, Message: message}
	}
	switch {
	case s.syncProblem() != nil:
		return not(metav1.ConditionFalse, v1alpha1.UnitsFailedReason, s.syncProblem().Error())
	case report.Problem != "":
		return not(metav1.ConditionFalse, v1alpha1.UnitsFailedReason, report.Problem)
	case report.Assignment == "":
		return not(metav1.ConditionUnknown, v1alpha1.AwaitingReportReason, "the cluster has not reported yet")
	case u.Failed > 0:
		return not(metav1.ConditionFalse, v1alpha1.UnitsFailedReason, fmt.Sprintf("%d of %d units failed%s", u.Failed, u.Total, examples(report.Assigned, v1alpha1.UnitFailed)))
	case report.Assignment != s.digest:
		return not(metav1.ConditionFalse, v1alpha1.ProgressingReason, "the cluster has not carried out its newest assignment yet")
	case u.Ready+u.Suspended < u.Total:
		return not(metav1.ConditionFalse, v1alpha1.ProgressingReason, fmt.Sprintf("%d of %d units are ready%s", u.Ready, u.Total, examples(report.Assigned, v1alpha1.UnitProgressing)))
	}
	message := plural(int(u.Ready), "unit is ready", "units are ready")
	if u.Suspended > 0 {
		message += fmt.Sprintf(", %d suspended", u.Suspended)
	}
	return not(metav1.ConditionTrue, v1alpha1.UnitsReadyReason, message)
}

// examples names some units in a state.
func examples(units []v1alpha1.UnitReport, state v1alpha1.UnitState) string {
	var all []string
	for _, u := range units {
		if u.State == state && len(all) < named {
			all = append(all, strings.TrimSuffix(u.Kind+"/"+u.Namespace+"/"+u.Name+" "+u.Message, " "))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, "; ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// facts takes over what a member says of itself. What it does not say stays.
func facts(status *v1alpha1.FleetClusterStatus, report *v1alpha1.ClusterReportStatus) {
	if report.Assignment == "" && report.Cluster.ID == "" {
		return // nothing was reported
	}
	status.KubernetesVersion = cmp.Or(report.Cluster.KubernetesVersion, status.KubernetesVersion)
	status.AgentVersion = cmp.Or(report.Cluster.AgentVersion, status.AgentVersion)
	status.ClusterID = cmp.Or(report.Cluster.ID, status.ClusterID)
	status.Nodes, status.Sources, status.Fleet, status.Assignment = report.Cluster.Nodes, report.Sources, report.Fleet, report.Assignment
	units := report.Units
	units.Summary = cmp.Or(units.Summary, fmt.Sprintf("%d/%d", units.Ready, units.Total))
	status.Units = &units
}

// conclude sets the condition of the units, and from all that there are Ready and the phase.
func conclude(cluster *v1alpha1.FleetCluster, units metav1.Condition) {
	set(cluster, units)
	ready := metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Reason: meta.SucceededReason, Message: units.Message}
	for _, t := range []string{
		v1alpha1.RenderedCondition, v1alpha1.ProvisionedCondition, v1alpha1.JoinedCondition, v1alpha1.ReachableCondition, v1alpha1.UnitsReadyCondition,
	} {
		if c := apimeta.FindStatusCondition(cluster.Status.Conditions, t); c != nil && c.Status != metav1.ConditionTrue {
			ready.Status, ready.Reason, ready.Message = c.Status, c.Reason, c.Message
			cluster.Status.Phase = phaseOf(c)
			if c.Reason == v1alpha1.AwaitingReportReason && apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.JoinedCondition) != nil {
				cluster.Status.Phase = v1alpha1.PhaseSyncing
			}
			break
		}
		cluster.Status.Phase = v1alpha1.PhaseReady
	}
	set(cluster, ready)
}

// refuse says of a cluster that it gets nothing whatever becomes of it.
func refuse(cluster *v1alpha1.FleetCluster, why error) {
	cluster.Status.Phase = v1alpha1.PhaseFailing
	set(cluster, metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNameTaken, Message: why.Error()})
}

// set sets a condition of a FleetCluster.
func set(cluster *v1alpha1.FleetCluster, c metav1.Condition) {
	c.ObservedGeneration = cluster.Generation
	apimeta.SetStatusCondition(&cluster.Status.Conditions, c)
}

// phaseOf is the phase of a cluster that a condition keeps from being ready.
func phaseOf(c *metav1.Condition) v1alpha1.Phase {
	switch c.Reason {
	case v1alpha1.ProvisioningFailedReason, v1alpha1.KubeConfigInvalidReason, v1alpha1.InstallFailedReason, v1alpha1.IdentityConflictReason, v1alpha1.UnitsFailedReason,
		v1alpha1.TemplateNotFoundReason, v1alpha1.InvalidParametersReason, v1alpha1.RenderFailedReason, v1alpha1.NothingRenderedReason:
		return v1alpha1.PhaseFailing
	case v1alpha1.UnreachableReason, v1alpha1.LeaseExpiredReason:
		return v1alpha1.PhaseUnreachable
	case v1alpha1.AwaitingReportReason:
		return v1alpha1.PhasePending
	}
	switch c.Type {
	case v1alpha1.ProvisionedCondition:
		return v1alpha1.PhaseProvisioning
	case v1alpha1.JoinedCondition:
		return v1alpha1.PhaseJoining
	case v1alpha1.ReachableCondition:
		return v1alpha1.PhaseUnreachable
	case v1alpha1.UnitsReadyCondition:
		return v1alpha1.PhaseSyncing
	default:
		return v1alpha1.PhasePending
	}
}

// deleting says that a cluster is on its way out, and what it waits for.
func deleting(cluster *v1alpha1.FleetCluster) {
	cluster.Status.Phase = v1alpha1.PhaseDeleting
	set(cluster, metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Reason: v1alpha1.DeletingReason, Message: leavingWord(cluster)})
}

// leavingWord says which of the steps out of the fleet a cluster has come to, by whose finalizers still hold it.
func leavingWord(cluster *v1alpha1.FleetCluster) string {
	lost := fmt.Sprintf("; if it is lost: kubectl annotate fleetcluster %s -n %s %s=true", cluster.Name, cluster.Namespace, v1alpha1.LostAnnotation)
	holds := func(finalizer string) bool { return slices.Contains(cluster.Finalizers, finalizer) }
	switch {
	case holds(v1alpha1.LeaveFinalizer) && unreachable(cluster):
		why := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.ReachableCondition).Message
		return "the cluster is leaving the fleet and is waited for, but " + why + lost
	case holds(v1alpha1.LeaveFinalizer):
		return "the cluster is leaving the fleet: its agent lets go of what was assigned to it" + lost
	case holds(v1alpha1.ProvisionFinalizer):
		message := "the cluster has left the fleet, and what it was built from is being deleted"
		if c := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.ProvisionedCondition); c != nil && c.Reason == v1alpha1.DeletingReason {
			message += ": " + c.Message
		}
		return message
	case holds(v1alpha1.AgentFinalizer):
		return "the cluster has left the fleet, and its agent is being taken away; where the cluster does not answer within a minute the agent is left there, which an event tells" + lost
	default:
		return "the cluster has left the fleet; finalizers of others hold its FleetCluster: " + strings.Join(cluster.Finalizers, ", ")
	}
}
