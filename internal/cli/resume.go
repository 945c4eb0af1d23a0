package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
)

type resumeOptions struct {
	clusterFlags
	all     bool
	wait    bool
	timeout time.Duration
}

func (a *app) resumeCommand() *cobra.Command {
	o := &resumeOptions{}
	cmd := &cobra.Command{
		Use:     "resume (source KIND | kustomization | helmrelease) (NAME... | --all) [flags]",
		Short:   "Reconcile suspended objects again and wait for the result",
		GroupID: groupAct,
		Long: "Reconcile suspended objects again, wait until that is done and print the result.\n" +
			"The exit code is 1 when one of them is not ready afterwards, and the message says why.",
		Example: "  bowline resume kustomization apps -n bowline-system\n" +
			"  bowline resume helmrelease podinfo -n apps\n" +
			"  bowline resume source git --all --wait=false",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "source", "kustomization", "helmrelease"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.resume(cmd.Context(), o, args)
		},
	}
	o.addNamespaces(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "all objects of the kind in the namespace (or, with -A, everywhere)")
	cmd.Flags().BoolVar(&o.wait, "wait", true, "wait for the result")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for the result of each object")
	return cmd
}

func (a *app) resume(ctx context.Context, o *resumeOptions, args []string) error {
	done, err := a.setSuspend(ctx, &o.clusterFlags, args, o.all, false)
	if err != nil || !o.wait {
		return err
	}
	var errs []error
	for _, obj := range done.objects {
		c := *done.cluster
		c.namespace = obj.GetNamespace()
		s, err := c.await(ctx, done.kind, obj.GetName(), o.timeout, settled)
		if err == nil {
			err = verdict(done.kind, obj.GetName(), s)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		printf(a.Out, "%s\n", result(done.kind, obj.GetName(), s))
	}
	return errors.Join(errs...)
}
