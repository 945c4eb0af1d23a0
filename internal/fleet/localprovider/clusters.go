package localprovider

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/secret"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// clusters reconciles LocalClusters.
type clusters struct{ base }

// Reconcile implements reconcile.Reconciler.
func (r *clusters) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return run(ctx, r.base, req, &localv1.LocalCluster{}, false, r.ensure, nil)
}

// ensure says that the infrastructure is there, which it is as soon as the control plane has a kubeconfig: Cluster API
// connects once it hears of the one, and where it does not find the other it comes back only after 30 seconds.
func (r *clusters) ensure(ctx context.Context, w *work[*localv1.LocalCluster]) (ctrl.Result, error) {
	_, err := secret.GetFromNamespacedName(ctx, r.reader, client.ObjectKeyFromObject(w.cluster), secret.Kubeconfig)
	if apierrors.IsNotFound(err) {
		w.say(clusterv1.ReadyCondition, metav1.ConditionFalse, localv1.AwaitingClusterReason, "the control plane has no kubeconfig yet")
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read the kubeconfig: %w", err)
	}
	w.object.Status.Initialization.Provisioned = yes()
	w.say(clusterv1.ReadyCondition, metav1.ConditionTrue, "Provisioned", "")
	return ctrl.Result{}, nil
}
