package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/cli/legacy"
)

// addWrite adds the flag that all commands which rewrite a working tree have.
func addWrite(cmd *cobra.Command, write *bool) {
	cmd.Flags().BoolVar(write, "write", false, "write the changes; without it they are only shown")
}

func treeArg(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

func (a *app) migrateHelmOperatorCommand() *cobra.Command {
	var o legacy.HelmOperatorOptions
	var write bool
	cmd := &cobra.Command{
		Use:   "helm-operator [DIR] [flags]",
		Short: "Rewrite HelmReleases of the Helm Operator in a working tree",
		Long: "Rewrite HelmReleases of the Helm Operator (helm.fluxcd.io/v1) in a working tree to today's, with the\n" +
			"HelmRepository or GitRepository that each takes its chart from. What a release is named, where it is kept\n" +
			"and how it is waited for, tried again and rolled back stays as it was, so that it is taken over and not made anew.\n\n" +
			"The changes are shown, and written with --write. Comments and values stay as they are. What cannot be\n" +
			"translated is listed with its file and line; such a file can be run through again.",
		Example: "  bowline migrate helm-operator ./fleet\n" +
			"  bowline migrate helm-operator ./fleet --write",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := legacy.HelmOperator(treeArg(args), o)
			if err != nil {
				return err
			}
			return a.rewrite(treeArg(args), r, write)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Namespace, "namespace", "n", "", "`namespace` of HelmReleases for which neither they nor the kustomization of their folder name one")
	f.DurationVar(&o.Interval, "interval", 5*time.Minute, "`interval` to write, which the Helm Operator had as an argument")
	addWrite(cmd, &write)
	return cmd
}

func (a *app) migrateFluxV1Command() *cobra.Command {
	var o legacy.FluxV1Options
	var write bool
	d := &o.Daemon
	cmd := &cobra.Command{
		Use:   "flux-v1 [DIR] [flags]",
		Short: "Rewrite a repository of Flux v1 in a working tree",
		Long: "Rewrite a repository of Flux v1 in a working tree: its .flux.yaml files and the arguments of fluxd become a\n" +
			"GitRepository and Kustomizations, and its annotations those of today. The arguments are read from the\n" +
			"Deployment of fluxd where the tree holds it; the flags of the same names count more.\n\n" +
			"The changes are shown, and written with --write. Everything else stays as it is. What cannot be\n" +
			"translated is listed with its file and line. For HelmReleases see migrate helm-operator.",
		Example: "  bowline migrate flux-v1 ./fleet --git-url https://example.com/fleet --git-path staging\n" +
			"  bowline migrate flux-v1 ./fleet --write",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := legacy.FluxV1(treeArg(args), o)
			if err != nil {
				return err
			}
			return a.rewrite(treeArg(args), r, write)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.URL, "git-url", "", "`address` of the repository")
	f.StringVar(&d.Branch, "git-branch", "", "`branch` of the repository (default: what the Deployment says, or master)")
	f.StringSliceVar(&d.Paths, "git-path", nil, "`folder` that was delivered; may be repeated")
	f.DurationVar(&d.Poll, "git-poll-interval", 0, "how often the repository is asked (default: what the Deployment says, or 5m)")
	f.DurationVar(&d.Sync, "sync-interval", 0, "how often everything is delivered (default: what the Deployment says, or 5m)")
	f.BoolVar(&d.Prune, "sync-garbage-collection", false, "remove from the cluster what is removed from Git")
	f.BoolVar(&d.SOPS, "sops", false, "files were decrypted with SOPS")
	f.StringVar(&d.Secret, "k8s-secret-name", "", "Secret with the `key` for Git (default: what the Deployment says, or flux-git-deploy)")
	f.StringVarP(&o.Namespace, "namespace", "n", "flux-system", "`namespace` of the objects that are made")
	f.StringVar(&o.Name, "name", "flux-system", "`name` of the GitRepository that is made")
	f.StringVar(&o.File, "to", "flux-system/sync.yaml", "`file` that the objects are written to, relative to DIR")
	addWrite(cmd, &write)
	return cmd
}

// rewrite shows what would change in a working tree and, if told to, changes it.
func (a *app) rewrite(dir string, r *legacy.Result, write bool) error {
	for _, c := range r.Changes {
		text := fileDifference(c)
		if fancy(a.Out) {
			text = colourDiff(text)
		}
		printf(a.Out, "%s", text)
	}
	for _, n := range r.Notes {
		printf(a.Err, "%s\n", n)
	}
	done := "would change; write that with --write"
	if write {
		if err := legacy.Write(dir, r.Changes); err != nil {
			return err
		}
		done = "changed"
	}
	line := "nothing to change"
	if len(r.Changes) > 0 {
		line = fmt.Sprintf("%s %s", count(len(r.Changes), "file"), done)
	}
	if len(r.Notes) > 0 {
		line = fmt.Sprintf("%s; %s to look at", line, count(len(r.Notes), "place"))
	}
	printf(a.Err, "%s\n", line)
	return nil
}

// fileDifference is a unified diff of one file, as patch takes it.
func fileDifference(c legacy.Change) string {
	before, after := "a/"+c.Path, "b/"+c.Path
	if c.Before == nil {
		before = "/dev/null"
	}
	if c.After == nil {
		after = "/dev/null"
	}
	// The first line is an invocation of diff that nobody made.
	_, text, _ := strings.Cut(string(diff.Diff(before, c.Before, after, c.After)), "\n")
	return text
}
