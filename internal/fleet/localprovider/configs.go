package localprovider

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// configs reconciles LocalConfigs.
type configs struct{ base }

// Reconcile implements reconcile.Reconciler.
func (r *configs) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return run(ctx, r.base, req, &localv1.LocalConfig{}, false, r.ensure, nil)
}

// ensure writes the bootstrap data. A simulated node needs none, and Cluster API wants to see some.
func (r *configs) ensure(ctx context.Context, w *work[*localv1.LocalConfig]) (ctrl.Result, error) {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.object.Namespace, Name: w.object.Name, Labels: map[string]string{clusterv1.ClusterNameLabel: w.cluster.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(w.object, localv1.GroupVersion.WithKind(localv1.LocalConfigKind))},
		},
		Type: clusterv1.ClusterSecretType,
		Data: map[string][]byte{"value": []byte("# a simulated node joins by itself\n"), "format": []byte("local")},
	}
	if err := r.client.Create(ctx, s, owner); err != nil && !apierrors.IsAlreadyExists(err) {
		return ctrl.Result{}, fmt.Errorf("write Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	w.object.Status.DataSecretName = s.Name
	w.object.Status.Initialization.DataSecretCreated = yes()
	w.say(localv1.ReadyCondition, metav1.ConditionTrue, localv1.BootstrapWrittenReason, "")
	return ctrl.Result{}, nil
}
