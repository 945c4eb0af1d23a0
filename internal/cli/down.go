package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/cli/local"
)

func (a *app) downCommand() *cobra.Command {
	var name string
	var keep bool
	cmd := &cobra.Command{
		Use:     "down [flags]",
		Short:   "Stop the plane on this machine and delete its data",
		GroupID: groupLocal,
		Long: "Stop the plane on this machine and delete its data: control plane, engine, Git server and\n" +
			"the repository that it served, and the clusters that it made on this machine. With --keep-data, a later up goes on where this one stopped.\n\n" +
			"Of a cluster that `up` did not make nothing is deleted; what is left there is printed.",
		Example: "  bowline down\n  bowline down --keep-data",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.down(cmd.Context(), name, keep)
		},
	}
	addPlaneName(cmd, &name)
	cmd.Flags().BoolVar(&keep, "keep-data", false, "stop everything and delete nothing")
	return cmd
}

func (a *app) down(ctx context.Context, name string, keep bool) error {
	plane, err := local.Open(name)
	if err != nil {
		return err
	}
	if !plane.Exists() {
		printf(a.Out, "plane %s is not there; nothing to do\n", name)
		return nil
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
	if err := a.stopServices(ctx, plane, settings.Hub); err != nil {
		return err
	}
	members, err := plane.StopMembers(ctx, keep)
	if err != nil {
		return err
	}
	if members > 0 {
		verb := "deleted"
		if keep {
			verb = "stopped"
		}
		printf(a.Out, "%-14s %s (%d)\n", "clusters", verb, members)
	}
	if !settings.Existing {
		if err := a.stopControlPlane(ctx, plane, keep); err != nil {
			return err
		}
	}
	if !keep {
		if err := plane.Remove(); err != nil {
			return err
		}
		printf(a.Out, "%-14s deleted\n", "data")
	}
	if settings.Existing {
		printf(a.Out, "left on the cluster at %s: %s, what they delivered, and the definitions of their kinds\n", settings.Server, left())
	}
	return nil
}

func (a *app) stopServices(ctx context.Context, plane *local.Plane, hub string) error {
	for _, s := range []struct {
		title   string
		service background.Service
	}{{"engine", plane.Engine()}, {"provider", plane.Provider()}, {"Cluster API", plane.ClusterAPIService("")}, {"Cluster API", plane.ClusterAPIService(hub)},
		{"git server", plane.Git()}} {
		ran, err := s.service.Stop(ctx)
		if err != nil {
			return err
		}
		if ran {
			printf(a.Out, "%-14s stopped\n", s.title)
		}
	}
	return nil
}

func (a *app) stopControlPlane(ctx context.Context, plane *local.Plane, keep bool) error {
	if !plane.HasControlPlane() {
		if keep {
			return nil
		}
		return plane.ClearControlPlane()
	}
	cp, err := plane.ControlPlane()
	if err != nil {
		return err
	}
	if keep {
		if err := cp.Stop(ctx); err != nil {
			return err
		}
		printf(a.Out, "%-14s stopped\n", "control plane")
		return nil
	}
	if err := cp.Delete(ctx); err != nil {
		return err
	}
	printf(a.Out, "%-14s deleted\n", "control plane")
	return nil
}
