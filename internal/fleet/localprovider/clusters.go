package localprovider

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// clusters reconciles LocalClusters.
type clusters struct{ base }

// Reconcile implements reconcile.Reconciler.
func (r *clusters) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return run(ctx, r.base, req, &localv1.LocalCluster{}, false, func(_ context.Context, w *work[*localv1.LocalCluster]) (ctrl.Result, error) {
		w.object.Status.Initialization.Provisioned = yes()
		w.say(clusterv1.ReadyCondition, metav1.ConditionTrue, "Provisioned", "")
		return ctrl.Result{}, nil
	}, nil)
}
