package localprovider

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/annotations"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// Finalizer keeps an object until what it stands for is gone.
const Finalizer = "local.fleet.bowline.dev/provider"

// owner is the field manager of what the provider writes.
const owner = client.FieldOwner("bowline-local-provider")

// ErrVersion is wrapped by errors of ControlPlanes that say that no control plane can be of the version.
var ErrVersion = errors.New("this version is not available")

// ControlPlanes starts, finds and deletes control planes on this machine.
type ControlPlanes interface {
	// Ensure starts the control plane of the name, or finds it running, and returns when it answers.
	// One that runs with another version is started anew.
	Ensure(ctx context.Context, name string, want Wanted) (ControlPlane, error)
	// Delete stops it and deletes its data; one that is not there is no error.
	Delete(ctx context.Context, name string) error
}

// Wanted says what a control plane is to be.
type Wanted struct {
	// Version is one of Kubernetes, such as v1.36.0; with "" the choice is free.
	Version string
	// Management says that it is that of a management cluster: clusters are made from it.
	Management bool
}

// ControlPlane is one that runs.
type ControlPlane struct {
	// Host and Port are where its API server answers.
	Host string
	Port int32
	// Version is the one that it behaves like.
	Version string
	// Kubeconfig is that of an administrator.
	Kubeconfig []byte
}

// AddToScheme registers the kinds that the provider reads and writes.
func AddToScheme(s *runtime.Scheme) error {
	return errors.Join(corev1.AddToScheme(s), clusterv1.AddToScheme(s), localv1.AddToScheme(s))
}

// Register adds the provider's controllers to a manager whose scheme has AddToScheme.
func Register(mgr ctrl.Manager, planes ControlPlanes) error {
	base := base{client: mgr.GetClient(), reader: mgr.GetAPIReader()}
	for _, c := range []struct {
		kind    string
		object  client.Object
		list    client.ObjectList
		workers int
		do      reconcile.Reconciler
		machine bool
	}{
		{localv1.LocalClusterKind, &localv1.LocalCluster{}, &localv1.LocalClusterList{}, 1, &clusters{base}, false},
		// To start one takes seconds, and several are started side by side.
		{localv1.LocalControlPlaneKind, &localv1.LocalControlPlane{}, &localv1.LocalControlPlaneList{}, 4, &controlPlanes{base, planes}, false},
		{localv1.LocalConfigKind, &localv1.LocalConfig{}, &localv1.LocalConfigList{}, 1, &configs{base}, true},
		{localv1.LocalMachineKind, &localv1.LocalMachine{}, &localv1.LocalMachineList{}, 4, &machines{base}, true},
	} {
		b := ctrl.NewControllerManagedBy(mgr).Named("local-"+c.kind).For(c.object).
			WithOptions(controller.Options{MaxConcurrentReconciles: c.workers}).
			Watches(&clusterv1.Cluster{}, base.ofCluster(c.list, client.Object.GetName))
		if c.kind == localv1.LocalClusterKind {
			b = b.Watches(&localv1.LocalControlPlane{}, base.ofCluster(c.list, func(o client.Object) string { return o.GetLabels()[clusterv1.ClusterNameLabel] }))
		}
		if c.machine {
			b = b.Watches(&clusterv1.Machine{}, handler.EnqueueRequestsFromMapFunc(
				util.MachineToInfrastructureMapFunc(localv1.GroupVersion.WithKind(c.kind))))
		}
		if err := b.Complete(c.do); err != nil {
			return fmt.Errorf("set up %s: %w", c.kind, err)
		}
	}
	return nil
}

// base is what all reconcilers need.
type base struct {
	client client.Client
	// reader reads from the API server: Secrets are not kept.
	reader client.Reader
}

// ofCluster enqueues the objects of the Cluster that an object is or belongs to: it may have been paused, or have come to
// its control plane.
func (b base) ofCluster(list client.ObjectList, name func(client.Object) string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		all, ok := list.DeepCopyObject().(client.ObjectList)
		if !ok || b.client.List(ctx, all, client.InNamespace(o.GetNamespace()), client.MatchingLabels{clusterv1.ClusterNameLabel: name(o)}) != nil {
			return nil
		}
		var requests []reconcile.Request
		_ = apimeta.EachListItem(all, func(item runtime.Object) error {
			if o, ok := item.(client.Object); ok {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
			}
			return nil
		})
		return requests
	})
}

// conditioned is an object of the provider.
type conditioned interface {
	client.Object
	GetConditions() []metav1.Condition
	SetConditions(to []metav1.Condition)
}

// work is one reconcile of one object: its cluster, which is there and not paused, and what the object was.
type work[T conditioned] struct {
	base
	object  T
	cluster *clusterv1.Cluster
}

// run reads an object and its cluster, has the work done, and writes what changed. It is the frame of all
// reconcilers: an object without a cluster is left until Cluster API has made it its own, and one that is paused is
// left altogether.
func run[T conditioned](ctx context.Context, b base, req ctrl.Request, object T, keep bool, do, end func(context.Context, *work[T]) (ctrl.Result, error)) (ctrl.Result, error) {
	if err := b.client.Get(ctx, req.NamespacedName, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	cluster, err := util.GetClusterFromMetadata(ctx, b.client, metav1.ObjectMeta{
		Namespace: object.GetNamespace(), Labels: object.GetLabels()})
	if errors.Is(err, util.ErrNoCluster) {
		return ctrl.Result{}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("read the Cluster: %w", err)
	}
	w := &work[T]{base: b, object: object, cluster: cluster}
	deleted := !object.GetDeletionTimestamp().IsZero()
	if err != nil && !deleted || cluster != nil && annotations.IsPaused(cluster, object) {
		return ctrl.Result{}, nil // its Cluster is about to come
	}
	if deleted {
		return w.letGo(ctx, end)
	}
	if keep && controllerutil.AddFinalizer(object, Finalizer) {
		if err := b.client.Update(ctx, object, owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("add the finalizer: %w", err)
		}
	}
	before, _ := object.DeepCopyObject().(T)
	result, failed := do(ctx, w)
	return result, errors.Join(failed, w.write(ctx, before))
}

// letGo has an object's end worked on, and lets it go when that is done.
func (w *work[T]) letGo(ctx context.Context, end func(context.Context, *work[T]) (ctrl.Result, error)) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(w.object, Finalizer) {
		return ctrl.Result{}, nil
	}
	if result, err := end(ctx, w); err != nil || !result.IsZero() {
		return result, err
	}
	controllerutil.RemoveFinalizer(w.object, Finalizer)
	if err := client.IgnoreNotFound(w.client.Update(ctx, w.object, owner)); err != nil {
		return ctrl.Result{}, fmt.Errorf("remove the finalizer: %w", err)
	}
	return ctrl.Result{}, nil
}

// write writes the spec and the status as far as they changed.
func (w *work[T]) write(ctx context.Context, before T) error {
	now, _ := w.object.DeepCopyObject().(T)
	if equality.Semantic.DeepEqual(before, now) {
		return nil
	}
	// The answer to the first write is the object as it was stored: the status that is to be written is that of now.
	if err := w.client.Patch(ctx, w.object, client.MergeFrom(before), owner); err != nil {
		return fmt.Errorf("write the spec: %w", err)
	}
	if err := w.client.Status().Patch(ctx, now, client.MergeFrom(before), owner); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// say sets a condition.
func (w *work[T]) say(kind string, status metav1.ConditionStatus, reason, message string) {
	all := w.object.GetConditions()
	apimeta.SetStatusCondition(&all, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: w.object.GetGeneration()})
	w.object.SetConditions(all)
}

func yes() *bool { b := true; return &b }
