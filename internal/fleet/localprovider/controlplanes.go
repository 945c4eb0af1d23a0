package localprovider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/kubeconfig"
	"sigs.k8s.io/cluster-api/util/secret"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// lookEvery is how often a control plane that runs is looked at: the kernel tells nobody that a process of
// somebody else's has ended.
const lookEvery = 10 * time.Second

// controlPlanes reconciles LocalControlPlanes.
type controlPlanes struct {
	base
	planes ControlPlanes
}

// Reconcile implements reconcile.Reconciler.
func (r *controlPlanes) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return run(ctx, r.base, req, &localv1.LocalControlPlane{}, true, r.ensure, r.remove)
}

func (r *controlPlanes) ensure(ctx context.Context, w *work[*localv1.LocalControlPlane]) (ctrl.Result, error) {
	o := w.object
	o.Status.ExternalManagedControlPlane = yes()
	now, err := r.planes.Ensure(ctx, nameOf(w.cluster), Wanted{Version: o.Spec.Version, Management: o.Spec.Management})
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the provider stops
	}
	if err != nil {
		reason := localv1.StartFailedReason
		if errors.Is(err, ErrVersion) {
			reason = localv1.VersionUnavailableReason
		}
		w.say(localv1.AvailableCondition, metav1.ConditionFalse, reason, err.Error())
		return ctrl.Result{RequeueAfter: lookEvery}, nil
	}
	if err := r.writeKubeconfig(ctx, w, now.Kubeconfig); err != nil {
		return ctrl.Result{}, err
	}
	o.Spec.ControlPlaneEndpoint = localv1.Endpoint{Host: now.Host, Port: now.Port}
	o.Status.Version = now.Version
	o.Status.Initialization.ControlPlaneInitialized = yes()
	w.say(localv1.AvailableCondition, metav1.ConditionTrue, localv1.RunningReason, "")
	return ctrl.Result{RequeueAfter: lookEvery}, nil
}

// writeKubeconfig puts the kubeconfig where Cluster API and everybody else looks for it.
func (r *controlPlanes) writeKubeconfig(ctx context.Context, w *work[*localv1.LocalControlPlane], data []byte) error {
	key := client.ObjectKeyFromObject(w.cluster)
	there, err := secret.GetFromNamespacedName(ctx, r.reader, key, secret.Kubeconfig)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	want := kubeconfig.GenerateSecretWithOwner(key, data, *metav1.NewControllerRef(w.object, localv1.GroupVersion.WithKind(localv1.LocalControlPlaneKind)))
	switch {
	case apierrors.IsNotFound(err):
		err = r.client.Create(ctx, want, owner)
	case bytes.Equal(there.Data[secret.KubeconfigDataName], data):
		return nil
	default:
		there.Data = want.Data
		err = r.client.Update(ctx, there, owner)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", want.Namespace, want.Name, err)
	}
	return nil
}

// remove deletes the control plane with all that is in it.
func (r *controlPlanes) remove(ctx context.Context, w *work[*localv1.LocalControlPlane]) (ctrl.Result, error) {
	cluster := w.cluster
	if cluster == nil { // it went first, against the order of Cluster API
		cluster = &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: w.object.Namespace, Name: w.object.Labels[clusterv1.ClusterNameLabel]}}
	}
	if err := r.planes.Delete(ctx, nameOf(cluster)); err != nil {
		return ctrl.Result{}, fmt.Errorf("delete the control plane: %w", err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: secret.Name(cluster.Name, secret.Kubeconfig)}}
	if err := client.IgnoreNotFound(r.client.Delete(ctx, s)); err != nil {
		return ctrl.Result{}, fmt.Errorf("delete Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return ctrl.Result{}, nil
}

// maxName is how long the name of a control plane may be.
const maxName = 40

// nameOf names the control plane of a Cluster on this machine: by its name, which it keeps when its objects
// move to another management cluster, and not by its uid, which it does not.
func nameOf(c *clusterv1.Cluster) string {
	name := c.Namespace + "-" + c.Name
	sum := sha256.Sum256([]byte(c.Namespace + "/" + c.Name)) // a-b and c, a and b-c
	return name[:min(len(name), maxName)] + "-" + hex.EncodeToString(sum[:3])
}
