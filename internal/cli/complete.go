package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completeObjects completes a kind first and then the names of that kind's
// objects on the cluster. A cluster that does not answer completes nothing.
func completeObjects(f *clusterFlags, kinds ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		switch {
		case len(args) == 0:
			return kinds, none
		case len(args) == 1 && args[0] == "source":
			return sourceWords(), none
		}
		k, _, err := parseObjects(args)
		if err != nil {
			return nil, none
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		c, err := f.connect()
		if err != nil {
			return nil, none
		}
		objects, err := c.readKind(ctx, k, nil)
		if err != nil {
			return nil, none
		}
		names := make([]string, 0, len(objects))
		for _, o := range objects {
			names = append(names, o.GetName())
		}
		return names, none
	}
}
