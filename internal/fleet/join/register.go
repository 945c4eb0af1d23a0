package join

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// Options says how the hub decides. Events is needed.
type Options struct {
	// Events tells on FleetClusters what was denied.
	Events record.EventRecorder
	// Clock tells the time; nil means that of the machine.
	Clock clock.PassiveClock
	// Linger is how long an invitation that was used still lets the agent read its certificate; 0 means
	// a minute, and less than nothing none. It is good for nothing else from its use on.
	Linger time.Duration
	// Workers is how many requests are decided on at one time; 0 means 4.
	Workers int
}

// Register adds the hub's controllers of identity to a manager whose scheme has AddToScheme: one decides on requests for
// certificates, the other sees to it that only those have rights that a FleetCluster names.
func Register(mgr ctrl.Manager, o Options) error {
	if o.Events == nil {
		return errNoEvents
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Linger == 0 {
		o.Linger = time.Minute
	}
	if o.Workers == 0 {
		o.Workers = 4
	}
	direct, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("register the approver of agents: %w", err)
	}
	underWay := newGrants()
	err = ctrl.NewControllerManagedBy(mgr).Named("fleet-requests").
		For(&certificatesv1.CertificateSigningRequest{}, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			r, ok := o.(*certificatesv1.CertificateSigningRequest)
			return ok && ours(r)
		}))).
		WithOptions(workers(o.Workers)).
		Complete(&approver{cached: mgr.GetClient(), direct: direct, events: o.Events, clock: o.Clock, linger: o.Linger, grants: underWay})
	if err != nil {
		return fmt.Errorf("register the approver of agents: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("fleet-rights").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(reincarnated())).
		WatchesMetadata(&rbacv1.ClusterRoleBinding{}, handler.EnqueueRequestsFromMapFunc(clusterOf)).
		WithOptions(workers(o.Workers)).
		Complete(&keeperOfRights{cached: mgr.GetClient(), direct: direct, grants: underWay})
	if err != nil {
		return fmt.Errorf("register the rights of agents: %w", err)
	}
	return nil
}

// workers limits how often is tried again what could not be written.
func workers(n int) controller.Options {
	return controller.Options{MaxConcurrentReconciles: n,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second)}
}

// reincarnated: somebody else may speak for a FleetCluster now.
func reincarnated() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.FleetCluster)
		after, also := e.ObjectNew.(*v1alpha1.FleetCluster)
		return ok && also && (before.UID != after.UID || before.Status.Incarnation != after.Status.Incarnation)
	}}
}

// clusterOf enqueues the FleetCluster whose agent or invitation has a binding.
func clusterOf(_ context.Context, o client.Object) []reconcile.Request {
	l := o.GetLabels()
	if l[labelIdentity] == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: l[labelNamespace], Name: l[labelCluster]}}}
}

// keeperOfRights has the rights follow status.incarnation. What needs no change costs no request.
type keeperOfRights struct {
	cached client.Reader
	direct client.Client
	grants *grants
}

// meanwhile is how long a request that is being granted is left to whoever grants it. When that is done, an event says so.
const meanwhile = 200 * time.Millisecond

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster.
func (k *keeperOfRights) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	right, _, err := k.holds(ctx, k.cached, req.NamespacedName)
	if err != nil || right {
		return ctrl.Result{}, err
	}
	if k.grants.underWay(req.NamespacedName) {
		return ctrl.Result{RequeueAfter: meanwhile}, nil
	}
	// The caches may be behind each other.
	right, cluster, err := k.holds(ctx, k.direct, req.NamespacedName)
	switch {
	case err != nil || right:
		return ctrl.Result{}, err
	case k.grants.underWay(req.NamespacedName): // it has just begun
		return ctrl.Result{RequeueAfter: meanwhile}, nil
	case cluster == nil:
		if err := sweep(ctx, k.direct, req.NamespacedName); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, revoke(ctx, k.direct, req.NamespacedName)
	case cluster.Status.Incarnation == "":
		return ctrl.Result{}, revoke(ctx, k.direct, req.NamespacedName)
	}
	return outrun(grant(ctx, k.direct, cluster, false))
}

// outrun looks again at once where somebody else wrote at the same moment: the two controllers of this room do, when
// a request is granted.
func outrun(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return ctrl.Result{RequeueAfter: 20 * time.Millisecond}, nil
	}
	return ctrl.Result{}, err
}

// holds reports whether those have rights that are to have them. The FleetCluster is nil where there is none. It is read after the rights:
// an approver notes the incarnation before it gives any, so rights of a FleetCluster that has none are left over, and not about to be given.
func (k *keeperOfRights) holds(ctx context.Context, from client.Reader, key types.NamespacedName) (bool, *v1alpha1.FleetCluster, error) {
	binding := &metav1.PartialObjectMetadata{}
	binding.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"))
	bound, err := found(from.Get(ctx, client.ObjectKey{Name: wideName(key)}, binding))
	if err != nil {
		return false, nil, fmt.Errorf("read the rights of the agent of %s: %w", object(key), err)
	}
	cluster := &v1alpha1.FleetCluster{}
	there, err := found(from.Get(ctx, key, cluster))
	switch {
	case err != nil:
		return false, nil, fmt.Errorf("read %s: %w", object(key), err)
	case !there:
		return false, nil, nil
	}
	wanted := cluster.Status.Incarnation
	if !bound {
		return wanted == "", cluster, nil
	}
	return wanted != "" && binding.Annotations[annotationIncarnation] == wanted && binding.Annotations[annotationUID] == string(cluster.UID), cluster, nil
}

// found tells an object that is not there from one that could not be read.
func found(err error) (bool, error) { return err == nil, client.IgnoreNotFound(err) }
