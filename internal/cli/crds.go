package cli

import (
	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/crds"
)

func (a *app) crdsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "crds",
		Short:   "Print the custom resource definitions that the engine serves",
		GroupID: groupEngine,
		Example: "  bowline crds | kubectl apply --server-side -f -",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.Out.Write(crds.YAML())
			return err
		},
	}
}
