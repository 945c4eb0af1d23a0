package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/cli/local"
)

// planeStatus is what the status command prints.
type planeStatus struct {
	Name       string       `json:"name"`
	Kubeconfig string       `json:"kubeconfig,omitempty"`
	Parts      []partStatus `json:"parts"`
}

// partStatus is one part of a plane. State is one word; Running and Ready are
// good, everything else is not.
type partStatus struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
}

const (
	stateRunning  = "Running"
	stateReady    = "Ready"
	stateStopped  = "Stopped"
	stateNotReady = "NotReady"
	stateUnknown  = "Unknown"
)

func (a *app) statusCommand() *cobra.Command {
	var name, output string
	cmd := &cobra.Command{
		Use:     "status [flags]",
		Short:   "Show how the plane on this machine is",
		GroupID: groupLocal,
		Long: "Show how the plane on this machine is: control plane, engine, Git server and fleet.\n" +
			"The exit code is 1 unless all of it runs and the fleet is ready.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.status(cmd.Context(), name, output)
		},
	}
	addPlaneName(cmd, &name)
	addOutput(cmd, &output, "json", "yaml")
	return cmd
}

func (a *app) status(ctx context.Context, name, output string) error {
	plane, err := local.Open(name)
	if err != nil {
		return err
	}
	s, err := readStatus(ctx, plane)
	if err != nil {
		return err
	}
	if output != "" {
		err = printValue(a.Out, output, s)
	} else {
		err = a.printStatus(s)
	}
	if err != nil {
		return err
	}
	for _, p := range s.Parts {
		if p.State != stateRunning && p.State != stateReady {
			return &exitError{code: exitFailed}
		}
	}
	return nil
}

func (a *app) printStatus(s planeStatus) error {
	rows := [][]cell{plainRow("PART", "STATE", "DETAIL")}
	for _, p := range s.Parts {
		state := cell{text: p.State, colour: red}
		if p.State == stateRunning || p.State == stateReady {
			state.colour = green
		}
		rows = append(rows, []cell{plain(p.Name), state, plain(p.Detail)})
	}
	if err := newTable(a.Out).write(rows...); err != nil {
		return err
	}
	if s.Kubeconfig != "" {
		printf(a.Out, "\nexport KUBECONFIG=%s\n", s.Kubeconfig)
	}
	return nil
}

func readStatus(ctx context.Context, plane *local.Plane) (planeStatus, error) {
	settings, err := plane.Settings()
	if err != nil {
		return planeStatus{}, err
	}
	s := planeStatus{Name: plane.Name}
	if !plane.Exists() {
		s.Parts = []partStatus{{Name: "plane " + plane.Name, State: stateStopped, Detail: "never started, or deleted"}}
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s.Kubeconfig = settings.Kubeconfig
	target := targetStatus(ctx, plane, settings)
	s.Parts = []partStatus{target, engineStatus(ctx, plane, settings)}
	if !settings.Existing {
		s.Parts = append(s.Parts, serviceStatus("Cluster API", plane.ClusterAPIService(settings.Hub), "builds clusters"),
			serviceStatus("provider", plane.Provider(), "clusters of this machine in "+plane.Members()))
	}
	if settings.GitAddr != "" {
		s.Parts = append(s.Parts, serviceStatus("git server", plane.Git(), settings.URL))
	}
	fleet := partStatus{Name: "fleet", State: stateUnknown, Detail: "the cluster does not run"}
	if target.State == stateRunning {
		fleet = fleetStatus(ctx, settings)
		if clusters, ok := clustersStatus(ctx, settings); ok {
			s.Parts = append(s.Parts, clusters)
		}
	}
	s.Parts = append(s.Parts, fleet)
	return s, nil
}

func targetStatus(ctx context.Context, plane *local.Plane, settings local.Settings) partStatus {
	if settings.Existing {
		return existingStatus(settings)
	}
	out := partStatus{Name: "control plane", State: stateStopped, Detail: settings.Server}
	cp, err := plane.HubControlPlane(settings.Hub)
	if err != nil {
		out.State, out.Detail = stateUnknown, line(err.Error())
		return out
	}
	state, err := cp.State(ctx)
	switch {
	case err != nil:
		out.State, out.Detail = stateUnknown, line(err.Error())
	case state.Running():
		out.State = stateRunning
	}
	return out
}

// connection is how a plane reaches its cluster.
func connection(s local.Settings) clusterFlags {
	return clusterFlags{kubeconfig: s.Kubeconfig, context: s.Context, search: s.KubeconfigEnv}
}

func existingStatus(settings local.Settings) partStatus {
	f := connection(settings)
	if _, err := readServerVersion(&f); err != nil {
		return partStatus{Name: "cluster", State: stateUnknown, Detail: line(explain(err).Error())}
	}
	return partStatus{Name: "cluster", State: stateRunning, Detail: settings.Server + " (existing)"}
}

func serviceStatus(name string, service background.Service, detail string) partStatus {
	pid, running := service.Running()
	if !running {
		return partStatus{Name: name, State: stateStopped, Detail: "log in " + service.Log()}
	}
	return partStatus{Name: name, State: stateRunning, Detail: fmt.Sprintf("%s (pid %d)", detail, pid)}
}

func engineStatus(ctx context.Context, plane *local.Plane, settings local.Settings) partStatus {
	if settings.Hub != "" {
		return serviceStatus("engine", plane.Agent(settings.Hub), "the agent of the cluster that is the hub")
	}
	out := serviceStatus("engine", plane.Engine(), "metrics at http://"+settings.MetricsAddr+"/metrics")
	if out.State == stateRunning && !healthy(ctx, "http://"+settings.HealthAddr+"/readyz") {
		out.State, out.Detail = stateNotReady, "log in "+plane.Engine().Log()
	}
	return out
}

// fleetStatus sums up all Kustomizations of the cluster.
func fleetStatus(ctx context.Context, settings local.Settings) partStatus {
	f := connection(settings)
	f.allNamespaces = true
	out := partStatus{Name: "fleet", State: stateUnknown}
	c, err := f.connect()
	if err != nil {
		out.Detail = line(explain(err).Error())
		return out
	}
	k := kustomizationKind()
	objects, err := c.readKind(ctx, k, nil)
	if err != nil {
		out.Detail = line(explain(err).Error())
		return out
	}
	return sumUp(k, objects)
}

// clustersStatus sums up the clusters of the fleet; ok is false where there are none.
func clustersStatus(ctx context.Context, settings local.Settings) (out partStatus, ok bool) {
	f := connection(settings)
	f.allNamespaces = true
	c, err := f.connect()
	if err != nil {
		return out, false // the fleet says why
	}
	k := fleetClusterKind()
	objects, err := c.readKind(ctx, k, nil)
	if err != nil || len(objects) == 0 {
		return out, false
	}
	out = partStatus{Name: "clusters", State: stateReady}
	ready, worst := 0, ""
	var below, well int32
	for _, o := range objects {
		if c, ok := o.(*fleetv1.FleetCluster); ok && c.Status.Fleet != nil {
			below, well = below+c.Status.Fleet.Clusters, well+c.Status.Fleet.Ready
		}
		if s := k.state(o).ready(); s.Status == metav1.ConditionTrue {
			ready++
		} else if worst == "" {
			worst = fmt.Sprintf("; %s/%s: %s", o.GetNamespace(), o.GetName(), line(s.Message))
		}
	}
	out.Detail = fmt.Sprintf("%d of %d ready", ready, len(objects))
	if below > 0 {
		out.Detail += fmt.Sprintf(", %d of %d below", well, below)
	}
	out.Detail += worst
	if ready < len(objects) {
		out.State = stateNotReady
	}
	return out, true
}

func sumUp(k kind, objects []client.Object) partStatus {
	ready, revision := 0, ""
	var worst string
	for _, o := range objects {
		s := k.state(o)
		if o.GetName() == fleetName && o.GetNamespace() == platformNamespace {
			revision = shortRevision(s.revision)
		}
		if s.ready().Status == metav1.ConditionTrue {
			ready++
		} else if worst == "" {
			worst = fmt.Sprintf("; %s/%s: %s", o.GetNamespace(), o.GetName(), line(s.ready().Message))
		}
	}
	out := partStatus{Name: "fleet", State: stateReady,
		Detail: fmt.Sprintf("%d of %d Kustomizations ready at %s%s", ready, len(objects), revision, worst)}
	if ready < len(objects) || len(objects) == 0 {
		out.State = stateNotReady
	}
	return out
}
