package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/fleet/link"
)

type agentOptions struct {
	controllerOptions
	invitation string
	timing     link.Timing
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
	for name, d := range map[string]*time.Duration{"lease-interval": &o.timing.Renew, "report-interval": &o.timing.Report, "hub-retry": &o.timing.Retry} {
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
		Left: func() { left.Store(true); cancel() },
	}
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if err := m.keep(ctx, who); err != nil {
			opts.Logger.Error(err, "the agent ends")
			cancel()
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

// member is the cluster that an agent is the agent of, and who it is on the hub.
type member struct {
	client client.Client
	store  join.Store
	file   string
	log    logr.Logger
	uid    types.UID
	// current is how the hub is reached now.
	current atomic.Pointer[rest.Config]
	// other is set when it joined as somebody else.
	other atomic.Bool
}

func newMember(config *rest.Config, invitation string, log logr.Logger) (*member, error) {
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		return nil, err
	}
	return &member{client: c, store: join.Store{Client: c}, file: invitation, log: log}, nil
}

func (m *member) use(c *join.Credentials) { m.current.Store(c.Config()) }

// identify returns who the agent is: who it was, or who an invitation makes it.
func (m *member) identify(ctx context.Context) (who *join.Credentials, err error) {
	if m.uid, err = join.Member(ctx, m.client); err != nil {
		return nil, err
	}
	told := false
	for {
		who, err = m.stored(ctx)
		if err == nil && who == nil {
			who, err = m.join(ctx)
		}
		kind := failure.KindOf(err)
		if err == nil || kind != failure.Unavailable && kind != failure.Conflict || ctx.Err() != nil {
			return who, err
		}
		if !told {
			m.log.Error(err, "the cluster cannot join yet: it is tried again")
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(joinRetry):
		}
	}
}

const (
	// joinRetry is how long to wait before a hub that does not answer is asked again.
	joinRetry = 5 * time.Second
	// joinPatience is how long a member that has joined waits for joining as somebody else.
	joinPatience = 30 * time.Second
)

// stored returns the credentials that are kept, or those that an invitation gives in place of them. What is assigned goes
// on with whatever there is.
func (m *member) stored(ctx context.Context) (*join.Credentials, error) {
	who, err := m.store.Load(ctx)
	if err != nil || who == nil {
		return nil, err
	}
	if err := who.Of(m.uid); err != nil {
		return nil, err
	}
	i, found, err := m.invited(ctx)
	if err != nil {
		m.log.Error(err, "the invitation is of no use: the cluster has joined already")
	}
	if !found || i.UID == who.UID && !m.denied(ctx, who) {
		return who, nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	again, err := m.join(ctx)
	if err != nil {
		m.log.Error(err, "the cluster stays what it was in the fleet")
		return who, nil
	}
	return again, nil
}

// denied reports whether the hub answers and does not accept the credentials.
func (m *member) denied(ctx context.Context, who *join.Credentials) bool {
	ctx, cancel := context.WithTimeout(ctx, joinRetry)
	defer cancel()
	_, err := join.HubTime(ctx, who.Config())
	return failure.KindOf(err) == failure.Denied
}

// invited returns the invitation that there is.
func (m *member) invited(ctx context.Context) (i join.Invitation, found bool, err error) {
	if m.file != "" {
		data, err := os.ReadFile(m.file)
		if err != nil {
			return i, false, &failure.Error{Op: "read the invitation", Object: m.file, Kind: failure.NotFound, Err: err}
		}
		i, err = join.ParseInvitation(data, m.file)
		return i, err == nil, err
	}
	var secret corev1.Secret
	err = m.client.Get(ctx, client.ObjectKey{Namespace: join.StoreNamespace, Name: agent.InvitationName}, &secret)
	if err != nil || len(secret.Data[agent.InvitationKey]) == 0 {
		return i, false, client.IgnoreNotFound(err)
	}
	i, err = join.ParseInvitation(secret.Data[agent.InvitationKey], "Secret/"+join.StoreNamespace+"/"+agent.InvitationName)
	return i, err == nil, err
}

// join joins with the invitation, which is good for nothing after that.
func (m *member) join(ctx context.Context) (*join.Credentials, error) {
	i, found, err := m.invited(ctx)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &failure.Error{Op: "join the fleet", Kind: failure.NotFound, Err: errors.New("the cluster belongs to no hub, and there is no invitation"),
			Remedy: "make one with `bowline join`, and name its file with --invitation"}
	}
	who, err := join.Join(ctx, m.store, i, m.uid)
	if err != nil {
		return nil, fmt.Errorf("join the fleet as FleetCluster %s/%s: %w", i.Namespace, i.Name, err)
	}
	used := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: join.StoreNamespace, Name: agent.InvitationName}}
	if err := client.IgnoreNotFound(m.client.Delete(ctx, used)); err != nil {
		m.log.Error(err, "the invitation was used and cannot be deleted; it is good for nothing any more")
	}
	m.log.Info("joined the fleet", "cluster", i.Namespace+"/"+i.Name, "hub", i.Server)
	return who, nil
}

// keep renews the credentials until ctx is done. An agent that the hub does not accept goes on with what it was told,
// and joins again when there is an invitation. It returns an error where it is somebody else then.
func (m *member) keep(ctx context.Context, who *join.Credentials) error {
	for {
		k := join.Keeper{
			Store: m.store, Renewed: func(c *join.Credentials) {
				who = c
				m.use(c)
			},
			Failed: func(err error) { m.log.Info("the credentials cannot be looked after now", "why", err.Error()) },
		}
		err := k.Run(ctx, who)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the agent ends
		}
		m.log.Error(err, "the hub does not accept this agent any more: what was assigned goes on; to join again: bowline join")
		again, err := m.again(ctx)
		if err != nil {
			return nil //nolint:nilerr // the agent ends
		}
		if again.Identity != who.Identity {
			m.other.Store(true)
			return m.moved()
		}
		who = again
		m.use(who)
	}
}

// again waits until joining again works.
func (m *member) again(ctx context.Context) (*join.Credentials, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Minute):
		}
		if _, found, err := m.invited(ctx); err != nil || !found {
			continue
		}
		who, err := m.join(ctx)
		if err == nil {
			return who, nil
		}
		m.log.Error(err, "the cluster cannot join again")
	}
}

// moved says that what runs is not what the cluster is any more.
func (m *member) moved() error {
	if !m.other.Load() {
		return nil
	}
	return &failure.Error{Op: "run the agent", Kind: failure.Conflict, Err: errors.New("the cluster has joined as another FleetCluster"), Remedy: "start the agent again"}
}
