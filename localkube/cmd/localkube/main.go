// Command localkube runs Kubernetes control planes on this machine: a real API server with its
// store, controllers and scheduler in one process per cluster, and simulated nodes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"

	"github.com/bowline-dev/bowline/localkube/internal/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// rootFlag is where the clusters are, shared by all commands.
type rootFlag struct{ path string }

func (r *rootFlag) resolve() (string, error) {
	if r.path != "" {
		return r.path, nil
	}
	return cluster.DefaultRoot(os.Getenv)
}

func (r *rootFlag) open(name string) (cluster.Cluster, error) {
	root, err := r.resolve()
	if err != nil {
		return cluster.Cluster{}, err
	}
	return cluster.Open(root, name)
}

func newCommand() *cobra.Command {
	root := &rootFlag{}
	command := &cobra.Command{
		Use:           "localkube",
		Short:         "Real Kubernetes control planes on this machine, with simulated nodes",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	command.PersistentFlags().StringVar(&root.path, "root", "",
		"folder of the clusters (default $BOWLINE_HOME/clusters, $XDG_DATA_HOME/bowline/clusters or ~/.local/share/bowline/clusters)")
	command.AddCommand(
		newStartCommand(root), newStopCommand(root), newDeleteCommand(root),
		newStatusCommand(root), newListCommand(root), newKubeconfigCommand(root),
		&cobra.Command{
			Use:   "version",
			Short: "Print the version of Kubernetes",
			Args:  cobra.NoArgs,
			Run: func(command *cobra.Command, _ []string) {
				fmt.Fprintln(command.OutOrStdout(), version.Get().GitVersion)
			},
		},
	)
	return command
}
