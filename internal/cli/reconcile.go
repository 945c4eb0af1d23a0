package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

type reconcileOptions struct {
	clusterFlags
	withSource bool
	force      bool
	reset      bool
	timeout    time.Duration
}

func (a *app) reconcileCommand() *cobra.Command {
	o := &reconcileOptions{}
	cmd := &cobra.Command{
		Use:     "reconcile (source KIND | kustomization | helmrelease) NAME [flags]",
		Short:   "Reconcile one object now and wait for the result",
		GroupID: groupAct,
		Long: "Ask for one object to be reconciled now, wait until that is done and print the result.\n" +
			"The exit code is 1 when the object is not ready afterwards, and the message says why.",
		Example: "  bowline reconcile source git fleet -n bowline-system\n" +
			"  bowline reconcile kustomization apps --with-source\n" +
			"  bowline reconcile helmrelease podinfo -n apps --force",
		Args:              cobra.RangeArgs(1, 3),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "source", "kustomization", "helmrelease"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reconcile(cmd.Context(), o, args)
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVar(&o.withSource, "with-source", false, "reconcile what it is delivered from first")
	cmd.Flags().BoolVar(&o.force, "force", false, "install or upgrade a HelmRelease once although nothing changed")
	cmd.Flags().BoolVar(&o.reset, "reset", false, "forget the failures of a HelmRelease, so that it is tried again")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for the result")
	return cmd
}

func (a *app) reconcile(ctx context.Context, o *reconcileOptions, args []string) error {
	k, name, err := parseObject(args)
	if err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	var extra []string
	for _, flag := range []struct {
		name, annotation string
		on               bool
	}{{"--force", helmv2.ForceRequestAnnotation, o.force}, {"--reset", helmv2.ResetRequestAnnotation, o.reset}} {
		if !flag.on {
			continue
		}
		if k.gvk.Kind != helmv2.HelmReleaseKind {
			return &failure.Error{Op: "read flag", Object: flag.name, Kind: failure.Invalid, Err: fmt.Errorf("it is for a helmrelease, not a %s", k.name)}
		}
		extra = append(extra, flag.annotation)
	}
	if o.withSource {
		sources, err := c.sourcesOf(ctx, k, name)
		if err != nil {
			return err
		}
		for _, s := range sources {
			if err := a.reconcileOne(ctx, s.cluster, s.kind, s.name, o.timeout); err != nil {
				return err
			}
		}
	}
	return a.reconcileOne(ctx, c, k, name, o.timeout, extra...)
}

func (a *app) reconcileOne(ctx context.Context, c *cluster, k kind, name string, timeout time.Duration, extra ...string) error {
	obj, err := c.get(ctx, k, name)
	if err != nil {
		return err
	}
	if k.state(obj).unasked {
		return &failure.Error{Op: "reconcile", Object: k.name + "/" + name, Kind: failure.Unsupported,
			Err: errors.New("nobody needs to ask for it: what changes is seen at once"), Remedy: fmt.Sprintf("see how it is with `%s get %s %s`", a.name, k.title, name)}
	}
	if k.state(obj).suspended {
		return &failure.Error{Op: "reconcile", Object: k.name + "/" + name, Kind: failure.Invalid,
			Err: errors.New("it is suspended"), Remedy: fmt.Sprintf("resume it with `%s resume %s %s -n %s`", a.name, k.title, name, c.namespace)}
	}
	if s := k.state(obj); s.static {
		printf(a.Out, "%s\n", result(k, name, s))
		return nil
	}
	request := time.Now().Format(time.RFC3339Nano)
	if err := c.requestReconcile(ctx, obj, request, extra...); err != nil {
		return err
	}
	printf(a.Out, "%s/%s reconciliation requested\n", k.name, name)
	s, err := c.await(ctx, k, name, timeout, func(o client.Object, s state) bool {
		return s.handled == request && settled(o, s)
	})
	if err != nil {
		return err
	}
	if err := verdict(k, name, s); err != nil {
		return err
	}
	printf(a.Out, "%s\n", result(k, name, s))
	return nil
}

// requestReconcile sets the annotation that asks for a reconciliation, and extra ones
// that count only where they have the same value.
func (c *cluster) requestReconcile(ctx context.Context, obj client.Object, request string, extra ...string) error {
	annotations := map[string]any{meta.ReconcileRequestAnnotation: request}
	for _, name := range extra {
		annotations[name] = request
	}
	return c.merge(ctx, obj, map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

func (c *cluster) annotate(ctx context.Context, obj client.Object, key, value string) error {
	return c.merge(ctx, obj, map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
}

// merge changes the fields in patch and no others.
func (c *cluster) merge(ctx context.Context, obj client.Object, patch map[string]any) error {
	raw, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("write patch: %w", err)
	}
	return c.Patch(ctx, obj, client.RawPatch(types.MergePatchType, raw), client.FieldOwner("bowline-cli"))
}
