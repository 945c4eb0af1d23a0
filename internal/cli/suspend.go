package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

type suspendOptions struct {
	clusterFlags
	all bool
}

func (a *app) suspendCommand() *cobra.Command {
	o := &suspendOptions{}
	cmd := &cobra.Command{
		Use:     "suspend (source KIND | kustomization | helmrelease) (NAME... | --all) [flags]",
		Short:   "Stop reconciling objects until they are resumed",
		GroupID: groupAct,
		Long: "Stop reconciling objects until they are resumed. What they delivered keeps running;\n" +
			"nobody changes it back, and new revisions are not delivered.",
		Example: "  bowline suspend kustomization apps -n bowline-system\n" +
			"  bowline suspend helmrelease podinfo -n apps\n" +
			"  bowline suspend source git --all -A",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "source", "kustomization", "helmrelease"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.setSuspend(cmd.Context(), &o.clusterFlags, args, o.all, true)
			return err
		},
	}
	o.addNamespaces(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "all objects of the kind in the namespace (or, with -A, everywhere)")
	return cmd
}

// changed are the objects of one kind that a command worked on.
type changed struct {
	cluster *cluster
	kind    kind
	objects []client.Object
}

// setSuspend suspends or resumes the objects that args and all select.
func (a *app) setSuspend(ctx context.Context, f *clusterFlags, args []string, all, suspend bool) (*changed, error) {
	k, names, err := parseObjects(args)
	if err != nil {
		return nil, err
	}
	switch {
	case all == (len(names) > 0):
		return nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid, Err: errors.New("give either names or --all")}
	case f.allNamespaces && !all:
		return nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid, Err: errNameInAll, Remedy: "use -n"}
	}
	c, err := f.connect()
	if err != nil {
		return nil, err
	}
	// All names are looked up before the first is changed, so that a misspelt
	// one changes nothing.
	objects, err := c.readKind(ctx, k, names)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		printf(a.Err, "%s\n", c.nothingFound())
	}
	for _, obj := range objects {
		if err := a.suspendOne(ctx, c, k, obj, suspend); err != nil {
			return nil, err
		}
	}
	return &changed{cluster: c, kind: k, objects: objects}, nil
}

func (a *app) suspendOne(ctx context.Context, c *cluster, k kind, obj client.Object, suspend bool) error {
	word := "resumed"
	if suspend {
		word = "suspended"
	}
	if k.state(obj).suspended == suspend {
		word += " (unchanged)"
	} else if err := c.merge(ctx, obj, map[string]any{"spec": map[string]any{"suspend": suspend}}); err != nil {
		return err
	}
	printf(a.Out, "%s/%s %s\n", k.name, obj.GetName(), word)
	return nil
}
