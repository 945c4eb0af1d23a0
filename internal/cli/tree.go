package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

type treeOptions struct {
	clusterFlags
	output string
}

func (a *app) treeCommand() *cobra.Command {
	o := &treeOptions{}
	cmd := &cobra.Command{
		Use:     "tree (kustomization | helmrelease | cluster) NAME [flags]",
		Short:   "Show what a Kustomization, a HelmRelease or a cluster is made of, with its health",
		GroupID: groupRead,
		Long: "Show the objects that a Kustomization or a HelmRelease delivered, each with its health and, where\n" +
			"it is not well, the cause. Kustomizations and HelmReleases among them are expanded.\n\n" +
			"Of a cluster of the fleet, show what it is built from, and what is placed on it: the units are\n" +
			"as the cluster reported them, and so are the clusters below one that manages clusters itself.",
		Example: "  bowline tree kustomization fleet -n bowline-system\n" +
			"  bowline tree helmrelease podinfo -n apps\n" +
			"  bowline tree cluster/production -n bowline-system\n" +
			"  bowline tree ks apps -o json",
		Args:              cobra.RangeArgs(1, 3),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "kustomization", "helmrelease", "cluster"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.tree(cmd.Context(), o, args)
		},
	}
	o.addNamespace(cmd)
	addOutput(cmd, &o.output, "json", "yaml")
	return cmd
}

func (a *app) tree(ctx context.Context, o *treeOptions, args []string) error {
	k, name, err := parseObject(args)
	if err != nil {
		return err
	}
	read := (*cluster).readTree
	switch {
	case k.gvk.Kind == fleetv1.FleetClusterKind:
		read = (*cluster).readClusterTree
	case !delivers(k.gvk.GroupKind()):
		return &failure.Error{Op: "read arguments", Kind: failure.Invalid,
			Err: fmt.Errorf("a %s delivers no objects of its own", k.name), Remedy: "use kustomization, helmrelease or cluster"}
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	root, err := read(c, ctx, k, name)
	if err != nil {
		return err
	}
	if o.output != "" {
		return printValue(a.Out, o.output, root)
	}
	return a.drawTree(root)
}

// drawTree prints a node per line, with health and message in columns.
func (a *app) drawTree(root *node) error {
	lines := root.lines("", "")
	width := 0
	for _, l := range lines {
		width = max(width, utf8.RuneCountInString(l.label))
	}
	colours := fancy(a.Out)
	for _, l := range lines {
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(l.label)+3)
		status := l.node.Health
		if colours {
			status = string(healthColour(l.node.Health)) + status + reset
		}
		text := strings.TrimRight(l.label+pad+status+strings.Repeat(" ", 13-len(l.node.Health))+l.node.Message, " ")
		if _, err := io.WriteString(a.Out, text+"\n"); err != nil {
			return err
		}
	}
	return nil
}

type treeLine struct {
	label string
	node  *node
}

// lines lays the node and all below it out; first is what its own line starts
// with, rest what those below start with.
func (n *node) lines(first, rest string) []treeLine {
	out := []treeLine{{label: first + n.label(), node: n}}
	for i, child := range n.Objects {
		if i == len(n.Objects)-1 {
			out = append(out, child.lines(rest+"└── ", rest+"    ")...)
		} else {
			out = append(out, child.lines(rest+"├── ", rest+"│   ")...)
		}
	}
	return out
}

func healthColour(word string) colour {
	switch word {
	case health.Current.String():
		return green
	case health.Failed.String(), notThere:
		return red
	default:
		return yellow
	}
}

var errCycle = errors.New("it contains itself")
