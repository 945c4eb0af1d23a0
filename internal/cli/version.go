package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/client-go/discovery"
)

// versions is what the version command prints.
type versions struct {
	Client clientVersion  `json:"client"`
	Server *serverVersion `json:"server,omitempty"`
}

type clientVersion struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

type serverVersion struct {
	Kubernetes string `json:"kubernetes"`
	Platform   string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	var f clusterFlags
	var clientOnly bool
	var output string
	cmd := &cobra.Command{
		Use:     "version [flags]",
		Short:   "Print the versions of the program and of the cluster",
		GroupID: groupRead,
		Example: "  bowline version --client\n  bowline version -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versions{Client: buildVersion(a.version)}
			var serverErr error
			if !clientOnly {
				v.Server, serverErr = readServerVersion(&f)
			}
			if err := a.printVersions(output, v); err != nil {
				return err
			}
			return serverErr
		},
	}
	f.addConnection(cmd)
	addOutput(cmd, &output, "json", "yaml")
	cmd.Flags().BoolVar(&clientOnly, "client", false, "print the version of the program only")
	return cmd
}

func (a *app) printVersions(output string, v versions) error {
	if output != "" {
		return printValue(a.Out, output, v)
	}
	printf(a.Out, "Bowline:    %s (%s, %s)\n", v.Client.Version, v.Client.Go, v.Client.Platform)
	if v.Server != nil {
		printf(a.Out, "Kubernetes: %s (%s)\n", v.Server.Kubernetes, v.Server.Platform)
	}
	return nil
}

// buildVersion is the version that the build set, or else what the Go toolchain
// recorded: the tag, or a pseudo-version that holds the commit.
func buildVersion(set string) clientVersion {
	v := clientVersion{Version: set, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && set == "" {
		v.Version = info.Main.Version
	}
	return v
}

func readServerVersion(f *clusterFlags) (*serverVersion, error) {
	cfg, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's version: %w", err)
	}
	info, err := d.ServerVersion()
	if err != nil {
		return nil, err
	}
	return &serverVersion{Kubernetes: info.GitVersion, Platform: info.Platform}, nil
}
