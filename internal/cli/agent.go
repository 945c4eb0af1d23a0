package cli

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/link"
)

type agentOptions struct {
	controllerOptions
	invitation string
	timing     link.Timing
	// off is by how much the agent's clock is wrong.
	off time.Duration
}

func (a *app) agentCommand() *cobra.Command {
	o := &agentOptions{}
	cmd := &cobra.Command{
		Use:     "agent [flags]",
		Short:   "Run the engine of a cluster that belongs to a fleet",
		GroupID: groupEngine,
		Long: "Run the engine on a member of a fleet: it takes what to run from the cluster's hub, reports to it,\n" +
			"and goes on with what it was told when the hub cannot be reached. Until it is interrupted, or the\n" +
			"cluster has left the fleet: then it says so and ends.\n\n" +
			"Who it is on the hub is kept in the Secret bowline-system/hub of the cluster. Where there is none, the agent\n" +
			"joins with an invitation, which `bowline join` makes: the file that --invitation names, or the key\n" +
			"\"invitation\" of the Secret bowline-system/bowline-invitation.",
		Example: "  bowline agent --invitation ./invitation.yaml --kubeconfig ./kubeconfig --data-dir ./data\n" +
			"  bowline agent --leader-elect",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runAgent(cmd.Context(), o, cmd.Flags())
		},
	}
	o.addConnection(cmd)
	o.addEngine(cmd)
	f := cmd.Flags()
	f.StringVar(&o.invitation, "invitation", "", "`file` with the invitation to join with (default: the Secret bowline-system/bowline-invitation)")
	for name, d := range map[string]*time.Duration{"lease-interval": &o.timing.Renew, "report-interval": &o.timing.Report, "hub-retry": &o.timing.Retry, "clock-offset": &o.off} {
		f.DurationVar(d, name, 0, "for tests")
		_ = f.MarkHidden(name)
	}
	return cmd
}

func (a *app) runAgent(ctx context.Context, o *agentOptions, flags *pflag.FlagSet) error {
	opts, err := a.engineOptions(ctx, &o.controllerOptions, flags)
	if err != nil {
		return err
	}
	m, err := newMember(opts.RestConfig, o.invitation, opts.Logger.WithName("agent"))
	if err != nil {
		return err
	}
	m.retry, m.clock = cmp.Or(o.timing.Retry, time.Minute), wrongClock{off: o.off}
	who, err := m.identify(ctx)
	if err != nil {
		return err
	}
	m.use(who)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var left atomic.Bool
	opts.Membership = &link.Membership{
		Cluster: types.NamespacedName{Namespace: who.Namespace, Name: who.Name}, Incarnation: who.Incarnation(),
		Hub: m.current.Load, AgentVersion: buildVersion(a.version).Version, Timing: o.timing,
		Left: func() { left.Store(true); cancel() }, Refused: m.refuse, Clock: m.clock,
	}
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if err := m.keep(ctx, who); err != nil {
			opts.Logger.Error(err, "the agent ends")
			cancel()
		}
	})
	keeping.Go(func() {
		if err := m.awaitInvitations(ctx, opts.RestConfig); err != nil {
			opts.Logger.Error(err, "invitations of other hubs are not heard of")
		}
	})
	err = controller.Run(ctx, opts)
	cancel()
	keeping.Wait()
	if err != nil || !left.Load() {
		return errors.Join(err, m.moved())
	}
	// What was installed goes with it: a Deployment that stayed would start agents that belong to nobody.
	if err := agent.Remove(context.WithoutCancel(ctx), m.client); err != nil {
		return err
	}
	printf(a.Out, "The cluster has left the fleet: it was FleetCluster %s/%s on %s\n", who.Namespace, who.Name, who.Server)
	return nil
}

// wrongClock is the machine's clock with an error, as machines have it.
type wrongClock struct {
	clock.RealClock
	off time.Duration
}

// Now implements clock.PassiveClock.
func (c wrongClock) Now() time.Time { return c.RealClock.Now().Add(c.off) }

// Since implements clock.PassiveClock.
func (c wrongClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
