package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

type joinOptions struct {
	clusterFlags
	member    clusterFlags
	replace   bool
	create    bool
	labels    []string
	hubURL    string
	hubCA     string
	image     string
	agentArgs []string
}

func (a *app) joinCommand() *cobra.Command {
	o := &joinOptions{}
	cmd := &cobra.Command{
		Use:     "join CLUSTER [flags]",
		Short:   "Let a cluster join the fleet",
		GroupID: groupAct,
		Long: "Let a cluster join as the FleetCluster of that name, which is one of the hub that the kubeconfig reaches.\n" +
			"With --member-kubeconfig or --member-context the agent is installed on that cluster. Without them the manifests\n" +
			"are printed, for the owners of a cluster that only they can reach. They hold an invitation: it is good\n" +
			"for one cluster and for one hour, and whoever has it can join with it.\n\n" +
			"A cluster that has joined keeps its place, and another one that asks for it is refused. --replace lets go of it:\n" +
			"its certificate has no rights from then on. The agent of a cluster that has joined is brought up to date.",
		Example: "  bowline join edge -n fleet --create --label zone=north --member-context edge\n" +
			"  bowline join edge -n fleet > agent.yaml\n" +
			"  bowline join edge -n fleet --replace --member-kubeconfig ./new.kubeconfig",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeClusters(&o.clusterFlags),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.join(cmd.Context(), o, args[0])
		},
	}
	o.addNamespace(cmd)
	f := cmd.Flags()
	f.StringVar(&o.member.kubeconfig, "member-kubeconfig", "", "`file` that says how to reach the cluster that joins")
	f.StringVar(&o.member.context, "member-context", "", "`name` of the context of the cluster that joins, in that file or in the usual ones")
	f.BoolVar(&o.replace, "replace", false, "let go of the cluster that has joined before")
	f.BoolVar(&o.create, "create", false, "make the FleetCluster where there is none")
	f.StringArrayVar(&o.labels, "label", nil, "label of the FleetCluster that --create makes, as `KEY=VALUE`; may be repeated")
	f.StringVar(&o.hubURL, "hub-url", "", "`URL` at which the cluster reaches the hub (default: the one of the kubeconfig)")
	f.StringVar(&o.hubCA, "hub-ca", "", "`file` with the certificates by which the cluster knows the hub (default: those of the kubeconfig)")
	f.StringVar(&o.image, "agent-image", "", "`image` that the agent runs (default: "+agent.Repository+" with the version of this program as its tag)")
	f.StringArrayVar(&o.agentArgs, "agent-arg", nil, "`argument` that is added to those of the agent; may be repeated")
	return cmd
}

// completeClusters completes the names of FleetClusters.
func completeClusters(f *clusterFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeObjects(f)(cmd, []string{"clusters"}, word)
	}
}

func (a *app) join(ctx context.Context, o *joinOptions, name string) error {
	hub, err := o.connect()
	if err != nil {
		return err
	}
	j := &joining{app: a, options: o, hub: hub}
	if j.endpoint, err = o.endpoint(hub); err != nil {
		return err
	}
	if j.cluster, err = j.declared(ctx, name); err != nil {
		return err
	}
	if err := j.check(); err != nil {
		return err
	}
	if o.replace {
		if err := j.letGo(ctx); err != nil {
			return err
		}
	}
	if !j.byHand() {
		return j.print(ctx)
	}
	return j.install(ctx)
}

// byHand says that there is a way to the cluster from here.
func (j *joining) byHand() bool {
	return j.options.member.kubeconfig != "" || j.options.member.context != ""
}

// endpoint is where the member is told to find the hub.
func (o *joinOptions) endpoint(hub *cluster) (join.Endpoint, error) {
	e, err := join.EndpointOf(hub.config)
	if err != nil {
		return e, err
	}
	if o.hubURL != "" {
		e.Server, e.ServerName = o.hubURL, ""
	}
	if o.hubCA != "" {
		if e.CA, err = os.ReadFile(o.hubCA); err != nil {
			return e, &failure.Error{Op: "read the hub's certificates from", Object: o.hubCA, Kind: failure.NotFound, Err: err}
		}
	}
	return e, nil
}

// joining is one cluster that joins.
type joining struct {
	*app
	options  *joinOptions
	hub      *cluster
	endpoint join.Endpoint
	cluster  *fleetv1.FleetCluster
}

func (j *joining) object() string {
	return "FleetCluster/" + j.cluster.Namespace + "/" + j.cluster.Name
}

// declared reads the FleetCluster, or makes it.
func (j *joining) declared(ctx context.Context, name string) (*fleetv1.FleetCluster, error) {
	labels, err := parseLabels(j.options.labels)
	if err != nil {
		return nil, err
	}
	if j.options.create {
		c := &fleetv1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: j.hub.namespace, Name: name, Labels: labels},
			Spec: fleetv1.FleetClusterSpec{Join: &fleetv1.JoinSpec{}}}
		err := j.hub.Create(ctx, c, client.FieldOwner("bowline-cli"))
		if err == nil {
			printf(j.Err, "fleetcluster/%s created\n", name)
		}
		if err == nil || !apierrors.IsAlreadyExists(err) {
			return c, err
		}
	}
	c, err := getAs[*fleetv1.FleetCluster](ctx, j.hub, fleetClusterKind(), name)
	if failure.KindOf(err) == failure.NotFound && !j.options.create {
		return nil, &failure.Error{Op: "join", Object: "fleetcluster/" + name, Kind: failure.NotFound,
			Err: fmt.Errorf("not found in namespace %q", j.hub.namespace), Remedy: "declare it in Git, or pass --create"}
	}
	return c, err
}

func parseLabels(all []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range all {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, &failure.Error{Op: "read flag", Object: "--label", Kind: failure.Invalid, Err: fmt.Errorf("%q is no label", l), Remedy: "write it as KEY=VALUE"}
		}
		labels[key] = value
	}
	return labels, nil
}

// check refuses what cannot be meant.
func (j *joining) check() error {
	switch {
	case !j.cluster.DeletionTimestamp.IsZero():
		return j.refused("it is being deleted", "wait until it is gone")
	case j.cluster.Spec.Agent.Mode == fleetv1.AgentPush && (!j.options.replace || j.byHand()):
		return j.refused("the hub runs the engine for it", "set spec.agent.mode to Pull")
	}
	return nil
}

func (j *joining) refused(why, remedy string) error {
	return &failure.Error{Op: "join", Object: j.object(), Kind: failure.Refused, Err: errors.New(why), Remedy: remedy}
}

// letGo lets go of the cluster that has joined.
func (j *joining) letGo(ctx context.Context) error {
	before := j.cluster.Status.ClusterID
	had := j.cluster.Status.Incarnation != ""
	if err := join.Replace(ctx, j.hub, client.ObjectKeyFromObject(j.cluster)); err != nil {
		return err
	}
	if had {
		printf(j.Err, "fleetcluster/%s let go of the cluster %s: its certificate has no rights any more\n", j.cluster.Name, before)
	}
	return j.hub.Get(ctx, client.ObjectKeyFromObject(j.cluster), j.cluster)
}
