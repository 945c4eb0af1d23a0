package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
)

type kubeconfigOptions struct {
	clusterFlags
	output string
}

func (a *app) kubeconfigCommand() *cobra.Command {
	o := &kubeconfigOptions{}
	cmd := &cobra.Command{
		Use:     "kubeconfig CLUSTER [flags]",
		Short:   "Print the kubeconfig of a cluster of the fleet",
		GroupID: groupRead,
		Long: "Print the kubeconfig by which the hub reaches a cluster of its fleet, as it is now. It is a\n" +
			"credential: --output writes it to a file that only its owner can read.",
		Example: "  bowline kubeconfig production -n bowline-system --output production.kubeconfig\n" +
			"  kubectl --kubeconfig production.kubeconfig get pods -A",
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeObjects(&o.clusterFlags)(cmd, []string{"clusters"}, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.kubeconfig(cmd.Context(), o, args[0])
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "`file` to write instead, for its owner only; one that is there is replaced")
	return cmd
}

func (a *app) kubeconfig(ctx context.Context, o *kubeconfigOptions, name string) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	of, err := getAs[*fleetv1.FleetCluster](ctx, c, fleetClusterKind(), name)
	if err != nil {
		return err
	}
	text, err := access.Kubeconfig(ctx, c, of)
	if err != nil {
		return err
	}
	if o.output == "" {
		_, err := a.Out.Write(text)
		return err
	}
	if err := writePrivate(o.output, text); err != nil {
		return &failure.Error{Op: "write", Object: o.output, Kind: failure.Denied, Err: err}
	}
	printf(a.Err, "wrote %s\n", o.output)
	return nil
}

// writePrivate replaces a file in one step by one that only its owner can read, whoever could
// read the one before.
func writePrivate(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
