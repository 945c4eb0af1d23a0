package cli

import (
	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/crds"
)

func (a *app) crdsCommand() *cobra.Command {
	var fleet bool
	cmd := &cobra.Command{
		Use:     "crds [flags]",
		Short:   "Print the custom resource definitions that the engine serves",
		GroupID: groupEngine,
		Long: "Print the custom resource definitions that the engine serves. An engine on a cluster that has\n" +
			"those of the fleet as well, and is started after they came, is a hub.",
		Example: "  bowline crds | kubectl apply --server-side -f -\n" +
			"  bowline crds --fleet | kubectl apply --server-side -f -",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text := crds.YAML()
			if fleet {
				text = crds.FleetYAML()
			}
			_, err := a.Out.Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&fleet, "fleet", false, "print those of the fleet's kinds instead")
	return cmd
}
