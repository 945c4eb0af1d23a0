package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/examples"
	"github.com/bowline-dev/bowline/internal/cli/local"
	"github.com/bowline-dev/bowline/internal/failure"
)

// What `up` creates on the cluster.
const (
	platformNamespace = "bowline-system"
	fleetName         = "fleet"
)

type upOptions struct {
	clusterFlags
	name    string
	repo    string
	example string
	path    string
	branch  string
	nodes   int
	apiPort int
	gitPort int
	wait    bool
	timeout time.Duration
}

func (a *app) upCommand() *cobra.Command {
	o := &upOptions{}
	cmd := &cobra.Command{
		Use:     "up [flags]",
		Short:   "Start a whole plane on this machine, fed from a Git repository",
		GroupID: groupLocal,
		Long: "Start a Kubernetes control plane with simulated nodes, Cluster API, the engine and a Git server\n" +
			"on this machine, and show the example fleet converging: clusters are made from what is in Git,\n" +
			"joined, and filled. With --example hierarchy these are management clusters themselves, which\n" +
			"make clusters in turn: three levels. It needs no cluster, no container engine and no cloud. What runs already is\n" +
			"left as it is, so that up may be called again at any time.\n\n" +
			"With --kubeconfig or --context, the engine works on an existing cluster instead; with --repo,\n" +
			"it delivers a repository of your own.",
		Example: "  bowline up\n" +
			"  bowline up --example hierarchy\n" +
			"  bowline up --repo https://git.example.com/platform.git --path ./clusters/prod --branch main\n" +
			"  bowline up --name trial --context my-cluster",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.up(cmd.Context(), o)
		},
	}
	o.addConnection(cmd)
	addPlaneName(cmd, &o.name)
	f := cmd.Flags()
	f.StringVar(&o.repo, "repo", "", "`URL` of the repository to deliver (default: one on this machine, made from an example)")
	f.StringVar(&o.example, "example", "", "`name` of the example that the repository is made from: "+exampleNames()+" (default: that of last time, or "+examples.All()[0].Name+")")
	f.StringVar(&o.path, "path", "", "`folder` of the repository to deliver (default: the example's, or the root of --repo)")
	f.StringVar(&o.branch, "branch", "", "`branch` of the repository to deliver (default: "+local.Branch+")")
	f.IntVar(&o.nodes, "nodes", 1, "number of simulated nodes")
	f.IntVar(&o.apiPort, "api-port", 0, "port of the API server on 127.0.0.1 (default: a free one)")
	f.IntVar(&o.gitPort, "git-port", 0, "port of the Git server on 127.0.0.1 (default: the one of last time, or a free one)")
	f.BoolVar(&o.wait, "wait", true, "return when the fleet is ready")
	f.DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long the fleet may take to become ready")
	return cmd
}

func addPlaneName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", "bowline", "`name` of the plane")
}

// bringUp is one call of up: what it was asked for and what it found out so far.
type bringUp struct {
	*app
	options  *upOptions
	plane    *local.Plane
	settings local.Settings
	cluster  *cluster
	started  time.Time
	// clusters are the names of those of the fleet, as far as they are in the platform namespace.
	clusters []string
	// masters are those of them that manage clusters themselves.
	masters []string
}

// step is one part of bringing a plane up. It returns a line that says what is
// there now.
type step struct {
	name string
	run  func(context.Context) (string, error)
}

func (a *app) up(ctx context.Context, o *upOptions) error {
	plane, err := local.Open(o.name)
	if err != nil {
		return err
	}
	if o.repo != "" && o.gitPort != 0 {
		return &failure.Error{Op: "read flag", Object: "--git-port", Kind: failure.Invalid, Err: errNoGitServer}
	}
	release, err := plane.Lock()
	if err != nil {
		return err
	}
	defer release()
	settings, err := plane.Settings()
	if err != nil {
		return err
	}
	b := &bringUp{app: a, options: o, plane: plane, settings: settings, started: time.Now()}
	if err := b.checkTarget(); err != nil {
		return err
	}
	if err := b.checkExample(); err != nil {
		return err
	}
	b.recallRepository()
	return b.run(ctx)
}

func (b *bringUp) run(ctx context.Context) error {
	for _, s := range b.steps() {
		line, err := s.run(ctx)
		if err != nil {
			return err
		}
		printf(b.Out, "%-14s %s\n", s.name, line)
	}
	if !b.options.wait {
		b.farewell()
		return nil
	}
	if err := b.converge(ctx); err != nil {
		return err
	}
	b.farewell()
	return nil
}

// steps is everything that `up` does, in order.
func (b *bringUp) steps() []step {
	steps := []step{{"control plane", b.startControlPlane}, {"APIs", b.installAPIs},
		{"Cluster API", b.startClusterAPI}, {"provider", b.startProvider}}
	if b.existing() {
		steps = []step{{"cluster", b.useCluster}, {"APIs", b.installAPIs}}
	}
	engine := step{"engine", b.startEngine}
	if b.settings.Hub != "" {
		engine.run = b.engineOfHub
	}
	if b.options.repo == "" {
		steps = append(steps, step{"repository", b.startGit})
	}
	return append(steps, engine, step{"fleet", b.declareFleet})
}

// existing reports whether the plane works on a cluster that it did not make.
func (b *bringUp) existing() bool {
	return b.options.kubeconfig != "" || b.options.context != "" || b.options.search != ""
}

// checkTarget refuses to turn a plane that works on one cluster to another.
func (b *bringUp) checkTarget() error {
	if _, err := exec.LookPath("git"); err != nil {
		return &failure.Error{Op: "find", Object: "git", Kind: failure.NotFound,
			Err: errors.New("it is not on the PATH"), Remedy: "install git"}
	}
	if !b.existing() && !b.settings.Existing {
		// Found out before anything is started.
		if _, err := b.plane.ClusterAPI(b.settings.Hub); err != nil {
			return err
		}
	}
	if left := b.settings.Left; left != nil {
		return &failure.Error{Op: "start plane", Object: b.plane.Name, Kind: failure.Conflict, Err: errors.New("it is on its way to FleetCluster/" + left.Cluster),
			Remedy: fmt.Sprintf("finish that: `%s pivot %s -n %s --name %s`", b.name, path.Base(left.Cluster), path.Dir(left.Cluster), b.plane.Name)}
	}
	if !b.plane.Exists() || b.existing() == b.settings.Existing {
		return nil
	}
	if b.settings.Existing {
		// A second up without flags goes on with the cluster it was given.
		b.options.clusterFlags = connection(b.settings)
		return nil
	}
	return &failure.Error{Op: "start plane", Object: b.plane.Name, Kind: failure.Conflict,
		Err:    errors.New("it has a control plane of its own"),
		Remedy: fmt.Sprintf("choose another --name, or remove it with `%s down --name %s`", b.name, b.plane.Name)}
}

// recallRepository makes a call without flags go on with the repository that an
// earlier one named: delivering another one would delete what that one made.
func (b *bringUp) recallRepository() {
	o, s := b.options, &b.settings
	if o.repo == "" {
		o.repo = s.Repo
	}
	if o.repo == s.Repo {
		o.path, o.branch = cmp.Or(o.path, s.Path), cmp.Or(o.branch, s.Branch)
	}
	o.branch = cmp.Or(o.branch, local.Branch)
	if o.repo == "" {
		s.Example = cmp.Or(o.example, s.Example, examples.All()[0].Name)
	}
	s.Repo, s.Path, s.Branch = o.repo, o.path, o.branch
}

// farewell says what to do next.
func (b *bringUp) farewell() {
	name := ""
	if b.plane.Name != "bowline" {
		name = " --name " + b.plane.Name
	}
	printf(b.Out, "\n")
	if !b.existing() {
		printf(b.Out, "  export KUBECONFIG=%s\n", b.settings.Kubeconfig)
	}
	hints := [][]cell{
		plainRow("  "+b.name+" get all -A", "what runs on the hub"),
		plainRow("  "+b.name+" tree kustomization "+fleetName+" -n "+platformNamespace, "and how it is"),
	}
	if b.settings.GitAddr != "" && b.options.repo == "" {
		hints = append(hints, plainRow("  git clone "+b.settings.URL, "change it, commit, git push: it is live in under a second"))
	}
	for _, c := range append(b.masters[:len(b.masters):len(b.masters)], b.clusters...) {
		hints = append(hints, plainRow("  "+b.name+" tree cluster/"+c+" -n "+platformNamespace, "what a cluster is made of, and what runs there"),
			plainRow("  "+b.name+" kubeconfig "+c+" -n "+platformNamespace+" -o "+c+".kubeconfig", "the way to it"))
		break
	}
	if len(b.masters) > 0 {
		hints = append(hints, plainRow("  "+b.name+" get clusters -n "+platformNamespace, "the management clusters, with how many of their clusters are ready"),
			plainRow("  "+b.name+" get clusters -n "+platformNamespace+" --kubeconfig "+b.masters[0]+".kubeconfig", "a level below: the clusters of one of them"))
	}
	hints = append(hints, plainRow("  "+b.name+" down"+name, "stop, and leave nothing behind"))
	// A terminal that is gone has nobody to advise.
	_ = newTable(b.Out).write(hints...)
}

// executable is this program, to be started in the background.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", &failure.Error{Op: "find", Object: "this program", Kind: failure.NotFound, Err: err}
	}
	return path, nil
}
