package provision

import (
	"context"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// checker tells on a ClusterTemplate whether it can be used, and by how many clusters it is.
type checker struct {
	*room
	compiler *template.Compiler
}

// Reconcile implements reconcile.Reconciler; a request names a ClusterTemplate.
func (c *checker) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	of := &v1alpha1.ClusterTemplate{}
	if err := c.client.Get(ctx, req.NamespacedName, of); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !of.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	next := of.DeepCopy()
	var all v1alpha1.FleetClusterList
	if err := c.client.List(ctx, &all, client.InNamespace(of.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list the clusters of ClusterTemplate %s: %w", req, err)
	}
	next.Status.Clusters = 0
	for i := range all.Items {
		if ref := all.Items[i].Spec.Template; ref != nil && ref.Name == of.Name {
			next.Status.Clusters++
		}
	}
	ready := metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Reason: meta.SucceededReason, Message: "the template can be used"}
	if err := c.compiler.CheckTemplate(ctx, of); err != nil {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.InvalidTemplateReason, clip(err.Error())
	}
	ready.ObservedGeneration, next.Status.ObservedGeneration = of.Generation, of.Generation
	apimeta.SetStatusCondition(&next.Status.Conditions, ready)
	if ctx.Err() != nil || equality.Semantic.DeepEqual(of.Status, next.Status) {
		return ctrl.Result{}, nil //nolint:nilerr // the hub stops: what failed now says nothing
	}
	err := c.client.Status().Patch(ctx, next, client.MergeFromWithOptions(of, client.MergeFromWithOptimisticLock{}), owner)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: outdated}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write the status of ClusterTemplate %s: %w", req, err)
	}
	return ctrl.Result{}, nil
}
