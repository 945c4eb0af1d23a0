package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/localkube/internal/cluster"
)

// startFlags are the choices of `localkube start`.
type startFlags struct {
	root             *rootFlag
	port, nodes      int
	components       string
	emulate          string
	noFsync          bool
	timeout          time.Duration
	foreground       bool
	detached         bool
	untilStdinCloses bool
	quiet            bool
}

func newStartCommand(root *rootFlag) *cobra.Command {
	flags := &startFlags{root: root}
	command := &cobra.Command{
		Use:   "start NAME",
		Short: "Start a cluster, making it if there is none, and wait until it is ready",
		Long: `Start a cluster, making it if there is none, and wait until it is ready.

The cluster runs in the background until it is stopped. Port, components, nodes and version are
remembered: a later start without these flags starts the same cluster again. To start a cluster
that already runs changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error { return flags.run(command, arguments[0]) },
	}
	set := command.Flags()
	set.IntVar(&flags.port, "port", 0, "port of the API server on 127.0.0.1; 0 chooses a free one (default: as before)")
	set.IntVar(&flags.nodes, "nodes", 1, "number of simulated nodes")
	set.StringVar(&flags.components, "components", cluster.ComponentsAll,
		"what to run: all, or some of "+strings.Join(cluster.AllComponents(), ","))
	set.StringVar(&flags.emulate, "emulate", "", "behave like this earlier minor version of Kubernetes, such as 1.35 (default: as before)")
	set.BoolVar(&flags.noFsync, "no-fsync", false, "faster, and safe against a kill, but not against a crash of the machine")
	set.DurationVar(&flags.timeout, "timeout", time.Minute, "how long the cluster may take to become ready")
	set.BoolVar(&flags.foreground, "foreground", false, "run in this process; print one line `ready kubeconfig=PATH` when ready")
	set.BoolVar(&flags.untilStdinCloses, "until-stdin-closes", false, "with --foreground: stop when standard input ends")
	set.BoolVar(&flags.quiet, "quiet", false, "print nothing but the path of the kubeconfig, or the line of --foreground")
	set.BoolVar(&flags.detached, "detached", false, "run as the background process of another start")
	_ = set.MarkHidden("detached")
	return command
}

func (f *startFlags) run(command *cobra.Command, name string) error {
	c, err := f.root.open(name)
	if err != nil {
		return err
	}
	settings, err := f.settings(command)
	if err != nil {
		return err
	}
	switch {
	case f.detached:
		return c.ServeDetached(command.Context(), settings, f.timeout, command.OutOrStdout())
	case f.foreground:
		return f.serve(command, c, settings)
	case f.untilStdinCloses:
		return errors.New("--until-stdin-closes needs --foreground")
	default:
		return f.start(command, c, settings)
	}
}

// settings holds only what was chosen on the command line.
func (f *startFlags) settings(command *cobra.Command) (cluster.Settings, error) {
	var settings cluster.Settings
	chosen := command.Flags().Changed
	if chosen("port") {
		if f.port < 0 || f.port > 65535 {
			return settings, fmt.Errorf("--port %d: use a number from 0 to 65535", f.port)
		}
		settings.Port = &f.port
	}
	if chosen("nodes") {
		if f.nodes < 0 {
			return settings, fmt.Errorf("--nodes %d: use a number that is not negative", f.nodes)
		}
		settings.Nodes = &f.nodes
	}
	if chosen("no-fsync") {
		settings.NoFsync = &f.noFsync
	}
	if chosen("emulate") {
		settings.Emulate = &f.emulate
	}
	if chosen("components") {
		components, err := cluster.ParseComponents(f.components)
		if err != nil {
			return settings, fmt.Errorf("--components: %w", err)
		}
		settings.Components = components
	}
	return settings, nil
}

func (f *startFlags) serve(command *cobra.Command, c cluster.Cluster, settings cluster.Settings) error {
	ctx, cancel := context.WithCancel(command.Context())
	defer cancel()
	if f.untilStdinCloses {
		go func() {
			_, _ = io.Copy(io.Discard, command.InOrStdin())
			cancel()
		}()
	}
	err := c.Serve(ctx, settings, f.timeout, func() error {
		_, err := fmt.Fprintf(command.OutOrStdout(), "ready kubeconfig=%s\n", c.Kubeconfig())
		return err
	})
	if errors.Is(err, cluster.ErrRunning) {
		fmt.Fprintf(command.OutOrStdout(), "already running kubeconfig=%s\n", c.Kubeconfig())
		return nil
	}
	return err
}

func (f *startFlags) start(command *cobra.Command, c cluster.Cluster, settings cluster.Settings) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	started := time.Now()
	alreadyRunning, err := c.Start(command.Context(), f.timeout, append([]string{executable}, f.detachedArguments(command, c)...))
	if err != nil {
		return err
	}
	out := command.OutOrStdout()
	switch {
	case f.quiet:
	case alreadyRunning && c.Ignores(settings):
		fmt.Fprintf(out, "cluster %q is already running, with other settings; stop it first to change them: localkube stop %s\n", c.Name, c.Name)
	case alreadyRunning:
		fmt.Fprintf(out, "cluster %q is already running\n", c.Name)
	default:
		fmt.Fprintf(out, "cluster %q is ready after %.1f s\n", c.Name, time.Since(started).Seconds())
	}
	fmt.Fprintln(out, c.Kubeconfig())
	return nil
}

// detachedArguments is the command line of the process in the background: the same choices, and
// the folder by its full name, because that process runs elsewhere.
func (f *startFlags) detachedArguments(command *cobra.Command, c cluster.Cluster) []string {
	arguments := []string{"start", c.Name, "--detached", "--root", filepath.Dir(c.Dir), "--timeout", f.timeout.String()}
	for _, name := range []string{"port", "nodes", "components", "emulate", "no-fsync"} {
		if flag := command.Flags().Lookup(name); flag.Changed {
			arguments = append(arguments, "--"+name+"="+flag.Value.String())
		}
	}
	return arguments
}
