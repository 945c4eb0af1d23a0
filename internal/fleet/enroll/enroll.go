// Package enroll is the room in which the hub lets its clusters in: it invites a cluster that it can reach, installs the
// agent there, upgrades it, and takes it away when the cluster leaves. It says on each FleetCluster what joining waits for.
//
// What the hub installed last is noted on the FleetCluster, and to whom an invitation was given on that. So
// a hub that is restarted goes on where it was, and a cluster at which nothing changed costs no request.
package enroll

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/kube"
)

// owner is the field manager of what is written on the hub.
const owner = client.FieldOwner("bowline-enroll")

// Options says what members are told, and how they are reached. Events, Hub and Image are needed.
type Options struct {
	// Hub is where members find the hub.
	Hub join.Endpoint
	// Inside says that this way is one that only the hub's own cluster has.
	Inside bool
	// Version is that of the hub. Agents that the hub cannot upgrade and that are older are told.
	Version string
	// Image is what the agent's Deployment runs, and Args are added to its arguments.
	Image string
	Args  []string
	// Kubeconfigs says what kubeconfigs of members may hold.
	Kubeconfigs kube.KubeconfigOptions
	// Secrets lends a reader of Secrets of the hub for one FleetCluster, until done is called. What is given back unused reads nothing
	// any more. Nil means that the API server is asked each time. Changed is to be fed with FleetClusters when something changes that was
	// read last; nil for never.
	Secrets func(cluster types.NamespacedName) (reader client.Reader, done func())
	Changed *feed.Feed
	// Events tells on FleetClusters what was done for them.
	Events record.EventRecorder
	// Clock tells the time; nil means that of the machine.
	Clock clock.PassiveClock
	// Workers is how many members are worked on at one time; 0 means 8.
	Workers int
	// Patience is how long a member may take to answer a request; 0 means ten seconds.
	Patience time.Duration
	// Retry limits how often is tried again what failed; nil means after a second at first, and after two minutes at last.
	Retry workqueue.TypedRateLimiter[types.NamespacedName]
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Retry == nil {
		o.Retry = workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](time.Second, 2*time.Minute)
	}
	if o.Changed == nil {
		o.Changed = &feed.Feed{}
	}
	return o
}

// enroller is the controller.
type enroller struct {
	Options
	cached client.Reader // FleetClusters as they were when the reconcile was asked for
	direct client.Client // reads from the API server
	// scheme is that of members.
	scheme *runtime.Scheme
	// manifests are those without an invitation, and digest names them.
	manifests []*unstructured.Unstructured
	digest    string
	seen      *sights
}

// Register adds the controller to a manager whose scheme has join.AddToScheme.
func Register(mgr ctrl.Manager, o Options) error {
	if o.Events == nil || o.Hub.Server == "" || o.Image == "" {
		return errors.New("set up the enrolment of clusters: a recorder of events, the way to the hub and an image are needed")
	}
	direct, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("set up the enrolment of clusters: %w", err)
	}
	e := &enroller{Options: o.withDefaults(), cached: mgr.GetClient(), direct: direct, scheme: runtime.NewScheme(), seen: newSights()}
	if e.Secrets == nil {
		e.Secrets = func(types.NamespacedName) (client.Reader, func()) { return direct, func() {} }
	}
	if e.manifests, err = agent.Manifests(agent.Options{Image: o.Image, Args: o.Args}); err != nil {
		return err
	}
	if e.digest, err = agent.Digest(e.manifests); err != nil {
		return err
	}
	if err := agent.AddToScheme(e.scheme); err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(mgr).Named("fleet-enrolment").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(concerned())).
		WatchesRawSource(e.Changed).
		WithOptions(controller.Options{MaxConcurrentReconciles: e.Workers,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second)}).
		Complete(e)
	if err != nil {
		return fmt.Errorf("set up the enrolment of clusters: %w", err)
	}
	return nil
}

// Reconcile implements reconcile.Reconciler. An error is one of the hub's own API; what a member does
// wrong is told on its FleetCluster.
func (e *enroller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := &v1alpha1.FleetCluster{}
	if err := e.cached.Get(ctx, req.NamespacedName, cluster); err != nil {
		e.seen.forget(req.NamespacedName)
		e.Retry.Forget(req.NamespacedName)
		_, done := e.Secrets(req.NamespacedName)
		done()
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	result, err := e.work(ctx, cluster)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: outdated}, nil
	}
	return result, err
}

// outdated is how long the cache is given to learn what somebody else has written.
const outdated = 50 * time.Millisecond

func (e *enroller) work(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	switch {
	case !cluster.DeletionTimestamp.IsZero():
		return e.leave(ctx, cluster)
	case cluster.Spec.Suspend:
		return ctrl.Result{}, nil
	case cluster.Spec.Join != nil:
		return e.await(ctx, cluster)
	case cluster.Spec.Agent.Mode == v1alpha1.AgentPush:
		return e.retire(ctx, cluster)
	}
	return e.enrol(ctx, cluster)
}
