package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/failure"
)

// The agreement with the engine: the reason of a Ready condition that waits for
// approval, the annotation that gives it, and where the condition's message
// names the plan.
const (
	reasonApprovalRequired = "ApprovalRequired"
	approvedPlanAnnotation = "fleet.bowline.dev/approved-plan"
)

var waitingPlan = regexp.MustCompile(`--plan (\S+?)[.\s]*$`)

type approveOptions struct {
	clusterFlags
	plan string
	show bool
}

func (a *app) approveCommand() *cobra.Command {
	o := &approveOptions{}
	cmd := &cobra.Command{
		Use:     "approve KIND NAME [flags]",
		Short:   "Allow the deletions that something waits for",
		GroupID: groupAct,
		Long: "Allow the deletions that a Kustomization or HelmRelease waits for, because they are more than its\n" +
			"deletion budget. The approval holds for exactly the plan that waits now: if what would be\n" +
			"deleted changes meanwhile, it has to be approved again.\n\n" +
			"Of a cluster of the fleet that would be deleted it is printed what goes with it: what it was built from, and\n" +
			"what was delivered to it.\n\n" +
			"On a hub, for a cluster: the deletions that wait on that cluster, by its report; and for a placement: that it\n" +
			"leaves the clusters which it does not select any more, when these are most of those that it is on.",
		Example: "  bowline approve kustomization apps --show\n" +
			"  bowline approve kustomization apps\n" +
			"  bowline approve kustomization apps --plan sha256:0c1f\n" +
			"  bowline approve cluster edge -n fleet\n" +
			"  bowline approve placement monitoring -n fleet --show",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "kustomization", "helmrelease", "cluster", "placement"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.approve(cmd.Context(), o, args)
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().StringVar(&o.plan, "plan", "", "approve only if the plan that waits has this `digest`")
	cmd.Flags().BoolVar(&o.show, "show", false, "print what waits and approve nothing")
	return cmd
}

func (a *app) approve(ctx context.Context, o *approveOptions, args []string) error {
	k, name, err := parseObject(args)
	if err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	switch k.name {
	case fleetClusterKind().name:
		return a.approveCluster(ctx, c, o, name)
	case placementKind().name:
		return a.approvePlacement(ctx, c, o, name)
	}
	obj, err := c.get(ctx, k, name)
	if err != nil {
		return err
	}
	ready := k.state(obj).ready()
	if ready.Reason != reasonApprovalRequired {
		printf(a.Out, "%s/%s waits for no approval\n", k.name, name)
		return nil
	}
	printf(a.Out, "%s\n", ready.Message)
	if err := a.showClusters(ctx, c, ready.Message); err != nil {
		return err
	}
	if o.show {
		return nil
	}
	plan, err := planToApprove(ready.Message, o.plan)
	if err != nil {
		return &failure.Error{Op: "approve", Object: k.name + "/" + name, Kind: failure.Invalid, Err: err}
	}
	if err := c.annotate(ctx, obj, approvedPlanAnnotation, plan); err != nil {
		return err
	}
	printf(a.Out, "%s/%s plan %s approved\n", k.name, name, plan)
	return nil
}

// planToApprove reads the digest of the plan that waits and holds it against
// the one that the user has seen, if any.
func planToApprove(message, seen string) (string, error) {
	m := waitingPlan.FindStringSubmatch(message)
	switch {
	case m == nil:
		return "", errors.New("its condition names no plan")
	case seen != "" && seen != m[1]:
		return "", fmt.Errorf("the plan that waits now is %s, not %s; read it with --show", m[1], seen)
	}
	return m[1], nil
}
