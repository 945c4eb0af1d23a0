// Package push is the room of members that can host no agent: the hub runs, in its own process, a whole engine for each of
// them, against its kubeconfig. It is the engine that agents are, with the same link to the hub, so this room decides
// only when it runs, and tells whether it does.
package push

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/kube"
)

// owner is the field manager of what this room writes.
const owner = client.FieldOwner("bowline-push")

// Options says how members are pushed to. Run, Secrets and Events are needed.
type Options struct {
	// Run runs an engine for a member until ctx is done, or fails. At most one runs for a member at one time, of this
	// process; that those of two processes take turns is its own affair.
	Run func(ctx context.Context, config *rest.Config, m link.Membership) error
	// Forget is called when no engine will run for this incarnation any more; nil where there is nothing to forget.
	Forget func(incarnation string)
	// Kept names the incarnations of which the engines of earlier processes left something to forget; nil for none. It is called once, before
	// any engine runs.
	Kept func() []string
	// Secrets lends a reader of Secrets of the hub for one FleetCluster, until done is called. When something changes that
	// was read last, Pusher.Wake is to be called. What is given back unused reads nothing any more.
	Secrets func(cluster types.NamespacedName) (reader client.Reader, done func())
	// Kubeconfigs says what the kubeconfigs of members may hold.
	Kubeconfigs kube.KubeconfigOptions
	// Events tells on FleetClusters what failed.
	Events record.EventRecorder
	// AgentVersion is what members report of their engine.
	AgentVersion string
	// Timing is that of the links.
	Timing link.Timing
	Logger logr.Logger
	// Clock tells the time; nil means that of the machine.
	Clock clock.WithTicker
	// Patience is how long a member may take to be prepared; 0 means a minute.
	Patience time.Duration
	// Pause is how long is waited before an engine that failed is started again, the first time, and LongestPause
	// after many failures; 0 means one second and half a minute.
	Pause, LongestPause time.Duration
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Forget == nil {
		o.Forget = func(string) {}
	}
	if o.Kept == nil {
		o.Kept = func() []string { return nil }
	}
	for at, standard := range map[*time.Duration]time.Duration{&o.Patience: time.Minute, &o.Pause: time.Second, &o.LongestPause: 30 * time.Second} {
		if *at == 0 {
			*at = standard
		}
	}
	return o
}

// Pusher runs the engines of the members that are pushed to.
type Pusher struct {
	Options
	client client.Client
	// direct reads from the API server.
	direct client.Reader
	hub    *rest.Config
	self   *feed.Feed

	// life is that of all engines.
	life context.Context //nolint:containedctx // engines outlive the reconcile that starts them
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	hubID   types.UID                        // guarded by mu; empty until it was asked for
	members map[types.NamespacedName]*member // guarded by mu
	// ending are those that were let go and have not ended yet.
	ending map[types.NamespacedName]*member // guarded by mu
	// holders says for whom an engine serves a cluster.
	holders map[types.UID]*member // guarded by mu
}

var errOptions = errors.New("register the engines of members that are pushed to: Run, Secrets and Events are needed")

// Register adds the controller to a manager whose scheme has FleetClusters and Namespaces.
func Register(mgr ctrl.Manager, o Options) (*Pusher, error) {
	if o.Run == nil || o.Secrets == nil || o.Events == nil {
		return nil, errOptions
	}
	life, end := context.WithCancel(context.Background())
	p := &Pusher{
		Options: o.withDefaults(), client: mgr.GetClient(), direct: mgr.GetAPIReader(), hub: mgr.GetConfig(), self: &feed.Feed{},
		life: life, end: end, members: map[types.NamespacedName]*member{}, ending: map[types.NamespacedName]*member{}, holders: map[types.UID]*member{},
	}
	err := ctrl.NewControllerManagedBy(mgr).Named("fleet-push").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(pushable())).
		WatchesRawSource(p.self).
		WatchesRawSource(source.Func(p.tidy)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second)}).
		Complete(p)
	if err == nil {
		err = mgr.Add(manager.RunnableFunc(p.untilDone))
	}
	if err != nil {
		end()
		return nil, fmt.Errorf("register the engines of members that are pushed to: %w", err)
	}
	return p, nil
}

// Wake has a FleetCluster looked at: its kubeconfig may have changed.
func (p *Pusher) Wake(cluster types.NamespacedName) { p.self.Add(cluster) }

// tidy forgets what was kept of members whose FleetClusters went while the hub was off. It is a source, because those have done their
// work before the first reconcile begins.
func (p *Pusher) tidy(ctx context.Context, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	kept := p.Kept()
	if len(kept) == 0 {
		return nil
	}
	var all v1alpha1.FleetClusterList
	if err := p.client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list FleetClusters: %w", err)
	}
	wanted := map[string]bool{}
	for i := range all.Items {
		wanted[all.Items[i].Status.Incarnation] = pushed(&all.Items[i])
	}
	for _, incarnation := range kept {
		if !wanted[incarnation] {
			p.Forget(incarnation)
		}
	}
	return nil
}

// untilDone ends all engines with the manager.
func (p *Pusher) untilDone(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock() // whoever is about to start an engine has started it, or sees the end
	p.end()
	p.mu.Unlock()
	p.work.Wait()
	return nil
}

// pushable lets through what decides whether an engine runs, and what others write where this room tells.
func pushable() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.FleetCluster)
		after, also := e.ObjectNew.(*v1alpha1.FleetCluster)
		if !ok || !also {
			return false
		}
		joined, isJoined := condition(before, v1alpha1.JoinedCondition), condition(after, v1alpha1.JoinedCondition)
		return before.UID != after.UID || before.Generation != after.Generation || len(before.Finalizers) != len(after.Finalizers) ||
			provisioned(before) != provisioned(after) || joined != isJoined ||
			before.Status.Incarnation != after.Status.Incarnation || before.Status.ClusterID != after.Status.ClusterID
	}}
}

func condition(c *v1alpha1.FleetCluster, kind string) (is struct{ status, reason, message string }) {
	if found := apimeta.FindStatusCondition(c.Status.Conditions, kind); found != nil {
		is.status, is.reason, is.message = string(found.Status), found.Reason, found.Message
	}
	return is
}

func provisioned(c *v1alpha1.FleetCluster) bool {
	return apimeta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ProvisionedCondition)
}
