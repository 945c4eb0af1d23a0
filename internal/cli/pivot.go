package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/cli/local"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
	"github.com/bowline-dev/bowline/internal/fleet/pivot"
	"github.com/bowline-dev/bowline/internal/kube"
)

type pivotOptions struct {
	clusterFlags
	plane        string
	toKubeconfig string
	dryRun       bool
	abort        bool
	deleteSource bool
	timeout      time.Duration
}

func (a *app) pivotCommand() *cobra.Command {
	o := &pivotOptions{}
	cmd := &cobra.Command{
		Use:     "pivot CLUSTER [flags]",
		Short:   "Move the management plane into a cluster that it built",
		GroupID: groupAct,
		Long: "Move the management plane into a cluster of its fleet, which is the hub from then on: Cluster API's objects by\n" +
			"Cluster API's own move, and the fleet's beside them. What runs on the clusters is not touched. The hub that is\n" +
			"left stands still for good, and can be deleted.\n\n" +
			"All that is in the way is told before anything is changed. A call that was interrupted is repeated, and goes on;\n" +
			"until Cluster API's objects are on their way it can be given up with --abort.\n\n" +
			"A plane that `bowline up` started stays the same plane: its services work for the new hub, and its first\n" +
			"control plane is stopped.",
		Example: "  bowline pivot production -n bowline-system --dry-run\n" +
			"  bowline pivot production -n bowline-system",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeClusters(&o.clusterFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pivot(cmd.Context(), o, args[0])
		},
	}
	o.addNamespace(cmd)
	addPlaneName(cmd, &o.plane)
	f := cmd.Flags()
	f.StringVar(&o.toKubeconfig, "to-kubeconfig", "", "`file` that says how to reach the cluster (default: as the hub does)")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would move, and what is in the way, and change nothing")
	f.BoolVar(&o.abort, "abort", false, "give up a pivot that was interrupted before anything moved")
	f.BoolVar(&o.deleteSource, "delete-source", false, "delete the data of the control plane that is left, where it is one of this machine")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long all of it may take")
	return cmd
}

// pivoting is one call of pivot.
type pivoting struct {
	*app
	options *pivotOptions
	cluster types.NamespacedName
	moves   pivot.Options
	// plane is what runs on this machine, where it is that which moves; nil elsewhere.
	plane *planePivot
}

func (a *app) pivot(ctx context.Context, o *pivotOptions, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	p := &pivoting{app: a, options: o}
	release, err := p.find()
	if err != nil {
		return err
	}
	defer release()
	if o.namespace == "" {
		c, err := o.connect()
		if err != nil {
			return err
		}
		o.namespace = c.namespace
	}
	p.cluster = types.NamespacedName{Namespace: o.namespace, Name: name}
	if p.plane != nil && p.plane.done() {
		return p.plane.again(ctx)
	}
	if err := p.connect(ctx); err != nil {
		return err
	}
	err = p.do(ctx)
	var obstructed *pivot.ObstructedError
	if errors.As(err, &obstructed) && len(obstructed.All) > 1 {
		for _, in := range obstructed.All {
			printf(a.Err, "%s\n", in)
		}
	}
	return err
}

// do does what the flags ask for.
func (p *pivoting) do(ctx context.Context) error {
	switch {
	case p.options.dryRun:
		return p.show(ctx)
	case p.options.abort:
		if err := pivot.GiveUp(ctx, p.moves); err != nil {
			return err
		}
		printf(p.Out, "given up: the hub goes on\n")
		return nil
	}
	return p.run(ctx)
}

// find finds out whether it is a plane of this machine that moves, and keeps other commands from it.
func (p *pivoting) find() (release func(), err error) {
	none := func() {}
	plane, err := local.Open(p.options.plane)
	if err != nil || !plane.Exists() {
		return none, err
	}
	settings, err := plane.Settings()
	if err != nil || settings.Existing {
		return none, err
	}
	config, err := p.options.restConfig()
	if failure.KindOf(err) == failure.NotFound && p.options.kubeconfig == "" {
		err = nil // none was named, and here is one
	}
	if err != nil {
		return none, err
	}
	if config != nil && config.Host != settings.Server && (settings.Left == nil || config.Host != settings.Left.Server) {
		return none, nil
	}
	if release, err = plane.Lock(); err != nil {
		return none, err
	}
	if settings, err = plane.Settings(); err != nil { // as nobody else changes them
		release()
		return none, err
	}
	p.plane = &planePivot{pivoting: p, bringUp: &bringUp{app: p.app, options: &upOptions{}, plane: plane, settings: settings, started: time.Now()}}
	p.options.kubeconfig, p.options.context = p.plane.source(), ""
	return release, nil
}

// connect reaches both sides.
func (p *pivoting) connect(ctx context.Context) error {
	config, err := p.options.restConfig()
	if err != nil {
		return err
	}
	p.moves = pivot.Options{Cluster: p.cluster, Tell: func(step, line string) { printf(p.Out, "%-14s %s\n", step, line) }}
	if p.moves.From, err = pivot.Connect(ctx, config); err != nil {
		return err
	}
	if config, err = p.target(ctx); err != nil {
		return err
	}
	if p.moves.To, err = pivot.Connect(ctx, config); err != nil {
		return err
	}
	if p.plane != nil {
		return p.plane.prepare(ctx, config, &p.moves)
	}
	return nil
}

// target returns how the cluster is reached. What people name is used as it is, and is theirs: it is kept nowhere.
func (p *pivoting) target(ctx context.Context) (*rest.Config, error) {
	if file := p.options.toKubeconfig; file != "" {
		named := clusterFlags{kubeconfig: file}
		return named.restConfig()
	}
	way, err := p.findWay(ctx)
	if err != nil {
		return nil, err
	}
	p.moves.Way = way
	// Whoever wrote it may not have programs run here.
	return kube.ParseKubeconfig(way, "FleetCluster/"+p.cluster.String(), kube.KubeconfigOptions{})
}

// findWay returns the hub's kubeconfig of the cluster, which is kept where it was until all is done.
func (p *pivoting) findWay(ctx context.Context) ([]byte, error) {
	begun, stage, err := pivot.Begun(ctx, p.moves.From)
	if err != nil {
		return nil, err
	}
	if stage != "" && begun == p.cluster {
		if kept, err := pivot.Recall(ctx, p.moves.From); kept != nil || err != nil {
			return kept, err
		}
	}
	c, err := p.options.connect()
	if err != nil {
		return nil, err
	}
	of, err := getAs[*fleetv1.FleetCluster](ctx, c, fleetClusterKind(), p.cluster.Name)
	if err != nil {
		return nil, err
	}
	way, err := access.Kubeconfig(ctx, c, of)
	if known := (&failure.Error{}); errors.As(err, &known) && (of.Spec.Join != nil || stage != "") {
		return nil, &failure.Error{Op: "pivot to", Object: "FleetCluster/" + p.cluster.String(), Kind: known.Kind, Err: known.Err,
			Remedy: "name the file that says how to reach it: --to-kubeconfig"}
	}
	return way, err
}

// show prints what would move and what is in the way.
func (p *pivoting) show(ctx context.Context) error {
	plan, err := p.moves.Survey(ctx)
	if err != nil {
		return err
	}
	for _, line := range plan.Counts() {
		printf(p.Out, "%s\n", line)
	}
	for _, id := range plan.Moves {
		printf(p.Out, "  %s\n", id)
	}
	for _, item := range plan.Carry {
		printf(p.Out, "  %s/%s/%s\n", item.Object.GetKind(), item.Object.GetNamespace(), item.Object.GetName())
	}
	for _, key := range plan.Joins {
		printf(p.Out, "FleetCluster/%s joins by itself: invite it afterwards\n", key)
	}
	for _, right := range plan.Stays {
		printf(p.Out, "%s\n", right)
	}
	if len(plan.Obstacles) > 0 {
		return &pivot.ObstructedError{Cluster: p.cluster, All: plan.Obstacles}
	}
	return nil
}

func (p *pivoting) run(ctx context.Context) error {
	if err := pivot.Run(ctx, p.moves); err != nil {
		return err
	}
	err := pivot.Wait(ctx, p.moves, func(key string) { p.moves.Tell("ready", "FleetCluster/"+key) })
	if err != nil {
		return err
	}
	return p.farewell(ctx)
}

// farewell says what is left to do.
func (p *pivoting) farewell(ctx context.Context) error {
	joins, err := pivot.Joins(ctx, p.moves)
	if err != nil {
		return err
	}
	for _, key := range joins {
		printf(p.Out, "FleetCluster/%s has to be invited by hand: %s join %s -n %s\n", key, p.name, key.Name, key.Namespace)
	}
	if p.plane != nil {
		return p.plane.retire(ctx)
	}
	printf(p.Out, "\nThe hub is FleetCluster/%s. What it was at %s stands still, and can be deleted.\n", p.cluster, p.moves.From.Config.Host)
	return nil
}

var errNoMember = errors.New("it is no cluster of this machine, and a plane that is one ends with it")
