package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/provision"
	"github.com/bowline-dev/bowline/internal/object"
)

type leaveOptions struct {
	clusterFlags
	lost bool
	show bool
}

func (a *app) leaveCommand() *cobra.Command {
	o := &leaveOptions{}
	cmd := &cobra.Command{
		Use:     "leave CLUSTER [flags]",
		Short:   "Have a cluster leave the fleet",
		GroupID: groupAct,
		Long: "Delete a FleetCluster, and print what goes with it. The cluster is told to let go of what was assigned to it\n" +
			"first; then its agent goes, and at last a cluster that was built from a template. One that cannot be reached\n" +
			"is waited for, unless --lost says that it will not come back.\n\n" +
			"A FleetCluster that is in Git has to be removed there.",
		Example: "  bowline leave edge -n fleet --show\n" +
			"  bowline leave edge -n fleet\n" +
			"  bowline leave edge -n fleet --lost",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeClusters(&o.clusterFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.leave(cmd.Context(), o, args[0])
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVar(&o.lost, "lost", false, "do not wait for the cluster: it is gone, and what was delivered to it stays where it was")
	cmd.Flags().BoolVar(&o.show, "show", false, "print what would go and delete nothing")
	return cmd
}

func (a *app) leave(ctx context.Context, o *leaveOptions, name string) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	of, err := getAs[*fleetv1.FleetCluster](ctx, c, fleetClusterKind(), name)
	if err != nil {
		return err
	}
	lines, err := goesWith(ctx, c, of, o.lost)
	if err != nil {
		return err
	}
	for _, line := range lines {
		printf(a.Out, "%s\n", line)
	}
	if o.show {
		return nil
	}
	leaving := !of.DeletionTimestamp.IsZero()
	if by := of.Labels[object.KustomizeGroup+"/name"]; by != "" && !leaving {
		return &failure.Error{Op: "leave", Object: "fleetcluster/" + name, Kind: failure.Refused,
			Err:    errors.New("it is in Git, and would come back"),
			Remedy: fmt.Sprintf("remove it there, and approve that: bowline approve kustomization %s -n %s", by, of.Labels[object.KustomizeGroup+"/namespace"])}
	}
	if o.lost {
		if err := c.annotate(ctx, of, fleetv1.LostAnnotation, "true"); err != nil {
			return err
		}
		printf(a.Out, "fleetcluster/%s is lost: it is not waited for\n", name)
	}
	if leaving {
		printf(a.Out, "fleetcluster/%s is leaving already\n", name)
		return nil
	}
	uid := of.GetUID()
	if err := c.Delete(ctx, of, client.Preconditions{UID: &uid}); err != nil {
		return err
	}
	printf(a.Out, "fleetcluster/%s leaves\n", name)
	return nil
}

// goesWith says what goes with a FleetCluster.
func goesWith(ctx context.Context, c *cluster, of *fleetv1.FleetCluster, lost bool) ([]string, error) {
	var assigned fleetv1.ClusterAssignment
	err := c.Get(ctx, client.ObjectKeyFromObject(of), &assigned)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	units := strings.Join(unitNames(&assigned.Spec), ", ")
	stays := of.Spec.DeletionPolicy == fleetv1.DeletionPolicyOrphan || of.Spec.Suspend
	built := of.Spec.Template != nil && !of.Spec.Suspend
	var lines []string
	switch {
	case built:
		if lines, err = builtFrom(ctx, c, of); err != nil {
			return nil, err
		}
	case of.Spec.Template != nil:
		lines = append(lines, "the cluster itself stays, and what it was built from: spec.suspend is set")
	}
	switch {
	case units == "":
		lines = append(lines, "nothing is assigned to it")
	case built:
		lines = append(lines, "what was delivered goes with the cluster: "+units)
	case lost || stays:
		lines = append(lines, "what was delivered stays on the cluster: "+units)
	default:
		lines = append(lines, "what was delivered goes from the cluster: "+units)
	}
	lines = append(lines, goesBelow(of.Status.Fleet, lost || stays)...)
	if of.Spec.Join == nil && of.Spec.Template == nil && of.Spec.Agent.Mode != fleetv1.AgentPush && !lost {
		lines = append(lines, "the agent goes from the cluster; the namespace bowline-system and the definitions stay")
	}
	return append(lines, "the certificate of the cluster has no rights on the hub any more"), nil
}

// goesBelow says what becomes of the clusters that a cluster manages.
func goesBelow(fleet *fleetv1.FleetCounts, stay bool) []string {
	names := belowNames(fleet)
	switch {
	case names == "":
		return nil
	case stay:
		return []string{"the clusters below it stay as they are: " + names}
	default:
		return []string{"the clusters below it go as their FleetClusters say: " + names}
	}
}

// belowNames names the clusters that a cluster manages, as far as its report does.
func belowNames(fleet *fleetv1.FleetCounts) string {
	if fleet == nil {
		return ""
	}
	names := make([]string, 0, len(fleet.Members))
	for _, m := range fleet.Members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	out := strings.Join(names, ", ")
	if more := int(fleet.Clusters) - len(names); more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}

// builtFrom says what a cluster is made of that goes with its FleetCluster.
func builtFrom(ctx context.Context, c *cluster, of *fleetv1.FleetCluster) ([]string, error) {
	itself := "the cluster itself, with all that runs on it: it was built from ClusterTemplate " + of.Spec.Template.Name
	if n := of.Status.Nodes; n > 0 {
		itself += fmt.Sprintf(", and its nodes are %d", n)
	}
	lines := []string{itself}
	unit := &kustomizev1.Kustomization{}
	err := c.Get(ctx, client.ObjectKey{Namespace: of.Namespace, Name: provision.UnitName(of.Name)}, unit)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	var objects []string
	if unit.Status.Inventory != nil {
		for _, entry := range unit.Status.Inventory.Entries {
			if id, err := object.ParseInventory(entry.ID); err == nil {
				objects = append(objects, id.String())
			}
		}
	}
	if len(objects) > 0 {
		lines = append(lines, "what it was built from: "+strings.Join(objects, ", "))
	}
	return lines, nil
}

// unitNames are the units of an assignment, each with the Placement that it is from.
func unitNames(spec *fleetv1.ClusterAssignmentSpec) []string {
	var all []string
	for _, u := range spec.Sync {
		all = append(all, fmt.Sprintf("%s/%s/%s", u.Kind, u.Namespace, u.Name))
	}
	for _, p := range spec.Placements {
		for _, u := range p.Units {
			all = append(all, fmt.Sprintf("%s/%s/%s (placement/%s)", u.Kind, u.Namespace, u.Name, p.Name))
		}
	}
	return all
}
