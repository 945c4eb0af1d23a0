package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

type reconcileOptions struct {
	clusterFlags
	withSource bool
	timeout    time.Duration
}

func (a *app) reconcileCommand() *cobra.Command {
	o := &reconcileOptions{}
	cmd := &cobra.Command{
		Use:     "reconcile (source git | kustomization) NAME [flags]",
		Short:   "Reconcile one object now and wait for the result",
		GroupID: groupAct,
		Long: "Ask for one object to be reconciled now, wait until that is done and print the result.\n" +
			"The exit code is 1 when the object is not ready afterwards, and the message says why.",
		Example: "  bowline reconcile source git fleet -n bowline-system\n" +
			"  bowline reconcile kustomization apps --with-source",
		Args:              cobra.RangeArgs(1, 3),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "source", "kustomization"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reconcile(cmd.Context(), o, args)
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVar(&o.withSource, "with-source", false, "reconcile the source of the Kustomization first")
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
	if o.withSource {
		source, sourceCluster, err := c.sourceOf(ctx, k, name)
		if err != nil {
			return err
		}
		if err := a.reconcileOne(ctx, sourceCluster, gitRepositoryKind(), source, o.timeout); err != nil {
			return err
		}
	}
	return a.reconcileOne(ctx, c, k, name, o.timeout)
}

// sourceOf returns the name of the GitRepository that a Kustomization comes
// from, and the connection scoped to its namespace.
func (c *cluster) sourceOf(ctx context.Context, k kind, name string) (string, *cluster, error) {
	obj, err := c.get(ctx, k, name)
	if err != nil {
		return "", nil, err
	}
	ks, ok := obj.(*kustomizev1.Kustomization)
	if !ok {
		return "", nil, &failure.Error{Op: "read flag", Object: "--with-source", Kind: failure.Invalid,
			Err: fmt.Errorf("a %s has no source of its own", k.name)}
	}
	ref := ks.Spec.SourceRef
	if ref.Kind != sourcev1.GitRepositoryKind {
		return "", nil, &failure.Error{Op: "reconcile", Object: ref.Kind + "/" + ref.Name, Kind: failure.Unsupported,
			Err: errors.New("this kind of source is not supported yet")}
	}
	scoped := *c
	if ref.Namespace != "" {
		scoped.namespace = ref.Namespace
	}
	return ref.Name, &scoped, nil
}

func (a *app) reconcileOne(ctx context.Context, c *cluster, k kind, name string, timeout time.Duration) error {
	obj, err := c.get(ctx, k, name)
	if err != nil {
		return err
	}
	if k.state(obj).suspended {
		return &failure.Error{Op: "reconcile", Object: k.name + "/" + name, Kind: failure.Invalid,
			Err: errors.New("it is suspended"), Remedy: fmt.Sprintf("resume it with `%s resume %s %s -n %s`", a.name, k.title, name, c.namespace)}
	}
	request := time.Now().Format(time.RFC3339Nano)
	if err := c.requestReconcile(ctx, obj, request); err != nil {
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

// requestReconcile sets the annotation that asks for a reconciliation.
func (c *cluster) requestReconcile(ctx context.Context, obj client.Object, request string) error {
	return c.annotate(ctx, obj, meta.ReconcileRequestAnnotation, request)
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
