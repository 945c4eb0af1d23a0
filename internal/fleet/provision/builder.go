package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// clusterBuilder has the clusters made that have a template, and deletes them.
type clusterBuilder struct {
	*room
	compiler *template.Compiler
	clusters *clusters
	tree     tree
}

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster.
func (b *clusterBuilder) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := &v1alpha1.FleetCluster{}
	if err := b.client.Get(ctx, req.NamespacedName, cluster); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	result, err := b.do(ctx, cluster)
	switch {
	case ctx.Err() != nil:
		return ctrl.Result{}, nil //nolint:nilerr // the hub stops: what failed now says nothing
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return ctrl.Result{RequeueAfter: outdated}, nil // the cache is behind
	case errors.Is(err, failure.Of(failure.Unavailable)):
		return ctrl.Result{RequeueAfter: time.Second}, nil // the last one of this name is still on its way out
	default:
		return result, err
	}
}

func (b *clusterBuilder) do(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	switch {
	case !cluster.DeletionTimestamp.IsZero():
		return b.remove(ctx, cluster)
	case cluster.Spec.Suspend:
		if controllerutil.ContainsFinalizer(cluster, v1alpha1.ProvisionFinalizer) {
			return ctrl.Result{}, b.Deliverer.Hold(ctx, cluster)
		}
		return ctrl.Result{}, nil
	case cluster.Spec.Template == nil:
		return b.release(ctx, cluster)
	case !controllerutil.ContainsFinalizer(cluster, v1alpha1.ProvisionFinalizer):
		// It is there before the first object is: whatever happens, what was made will be deleted.
		return ctrl.Result{}, b.finalizer(ctx, cluster, controllerutil.AddFinalizer)
	default:
		return b.build(ctx, cluster)
	}
}

// build renders the template, hands on what came of it, and tells how far that has come. Where nothing comes of it, the last unit
// stays as it is.
func (b *clusterBuilder) build(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	next := cluster.DeepCopy()
	objects, reason, err := b.render(ctx, cluster)
	switch {
	case err == nil:
		reason, err = b.send(ctx, cluster, objects)
	case reason != "":
		if recall := b.Deliverer.Recall(ctx, cluster); recall != nil {
			return ctrl.Result{}, recall
		}
	}
	switch {
	case err != nil && reason == "":
		return ctrl.Result{}, err
	case err != nil:
		mark(next, v1alpha1.RenderedCondition, metav1.ConditionFalse, reason, err.Error())
	default:
		mark(next, v1alpha1.RenderedCondition, metav1.ConditionTrue, v1alpha1.RenderedReason, counted(len(objects)))
	}
	v, err := b.judge(ctx, cluster, objects)
	if err == nil {
		err = b.tell(ctx, next, v)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return b.write(ctx, cluster, next, v.again)
}

func counted(objects int) string {
	if objects == 1 {
		return "the template gave 1 object"
	}
	return fmt.Sprintf("the template gave %d objects", objects)
}

// render returns the objects, or why there are none, with the reason for the condition; without a reason it is to be tried again.
func (b *clusterBuilder) render(ctx context.Context, cluster *v1alpha1.FleetCluster) (objects []*unstructured.Unstructured, reason string, err error) {
	of := &v1alpha1.ClusterTemplate{}
	name := types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Spec.Template.Name}
	if err := b.client.Get(ctx, name, of); apierrors.IsNotFound(err) {
		return nil, v1alpha1.TemplateNotFoundReason, &failure.Error{Op: "render", Object: "ClusterTemplate/" + name.String(), Kind: failure.NotFound,
			Err: errors.New("there is no such template in the namespace of the cluster"), Remedy: "create it, or correct spec.template.name"}
	} else if err != nil {
		return nil, "", err
	}
	objects, err = b.compiler.Render(ctx, of, cluster)
	if err != nil {
		return nil, template.ReasonOf(err), err
	}
	return objects, "", nil
}

// send hands the objects on.
func (b *clusterBuilder) send(ctx context.Context, cluster *v1alpha1.FleetCluster, objects []*unstructured.Unstructured) (reason string, err error) {
	packed, err := files(objects)
	if err != nil {
		return v1alpha1.RenderFailedReason, err
	}
	err = b.Deliverer.Send(ctx, cluster, packed, unitSpec(cluster))
	if errors.Is(err, failure.Of(failure.Conflict)) {
		return v1alpha1.RenderFailedReason, err // its name is somebody else's
	}
	return "", err
}

// release lets go of what was made of a template that the cluster no longer has. It stays: that a cluster comes to be in another
// way says nothing of the one that is there.
func (b *clusterBuilder) release(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	if controllerutil.ContainsFinalizer(cluster, v1alpha1.ProvisionFinalizer) {
		if gone, err := b.Deliverer.Withdraw(ctx, cluster, v1alpha1.DeletionPolicyOrphan); err != nil || !gone {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, b.finalizer(ctx, cluster, controllerutil.RemoveFinalizer)
	}
	next := cluster.DeepCopy()
	apimeta.RemoveStatusCondition(&next.Status.Conditions, v1alpha1.RenderedCondition)
	if cluster.Spec.Join != nil {
		mark(next, v1alpha1.ProvisionedCondition, metav1.ConditionTrue, v1alpha1.NothingToProvisionReason, "somebody else made the cluster, and it joins by itself")
	}
	return b.write(ctx, cluster, next, 0)
}

// finalizer writes that the cluster is kept, or is not; the event of it brings the cluster back.
func (r *room) finalizer(ctx context.Context, cluster *v1alpha1.FleetCluster, set func(client.Object, string) bool) error {
	next := cluster.DeepCopy()
	set(next, v1alpha1.ProvisionFinalizer)
	err := r.client.Patch(ctx, next, client.MergeFromWithOptions(cluster, client.MergeFromWithOptimisticLock{}), owner)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the finalizers of FleetCluster %s: %w", client.ObjectKeyFromObject(cluster), err)
	}
	return nil
}

// unit returns the Kustomization of a cluster; nil where there is none.
func (b *clusterBuilder) unit(ctx context.Context, cluster *v1alpha1.FleetCluster) (*kustomizev1.Kustomization, error) {
	k := &kustomizev1.Kustomization{}
	err := b.client.Get(ctx, types.NamespacedName{Namespace: cluster.Namespace, Name: UnitName(cluster.Name)}, k)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // as the comment says
	case err != nil:
		return nil, fmt.Errorf("read Kustomization %s: %w", UnitName(cluster.Name), err)
	default:
		return k, nil
	}
}
