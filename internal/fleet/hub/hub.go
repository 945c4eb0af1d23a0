// Package hub is the room of the hub's side of Placements: it writes what each
// member is to run into its assignment, reads what the members report, and tells
// both on Placements and FleetClusters.
//
// One survey for each namespace reads Placements and sources when one of them changed, and makes the value
// that all assignments of the namespace are made from. Each cluster is then worked on by itself. What the
// rooms remember is in memory only, and comes back with the first survey.
package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// owner is the field manager of what the hub writes.
const owner = client.FieldOwner("bowline-hub")

// Options says how the hub works. The zero value of every field but Sources is a sound default.
type Options struct {
	// Sources are the kinds of sources that the cluster serves; others are not looked at.
	Sources []string
	// Clock tells the time; nil means that of the machine.
	Clock clock.PassiveClock
	// Workers is how many clusters are worked on at one time; 0 means 8.
	Workers int
	// Settle is how long nothing more may stop matching a Placement before anything leaves it; 0 means two
	// seconds. Labels of many clusters change one after the other, and count as one step.
	Settle time.Duration
	// StatusInterval is the least time between two status writes of a Placement; 0 means a second.
	StatusInterval time.Duration
	// Grace is how long a cluster may be behind its assignment before that is told; 0 means five seconds.
	Grace time.Duration
	// Lease is how long after the last change of its Lease a member is taken for lost; 0 means a minute.
	Lease time.Duration
	// Seen is the least time between two status writes that only say when a member was last seen; 0 means ten minutes.
	Seen time.Duration
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	for at, standard := range map[*time.Duration]time.Duration{&o.Settle: 2 * time.Second, &o.StatusInterval: time.Second, &o.Grace: 5 * time.Second,
		&o.Lease: time.Minute, &o.Seen: 10 * time.Minute} {
		if *at == 0 {
			*at = standard
		}
	}
	return o
}

// AddToScheme registers the kinds that the hub reads and writes.
func AddToScheme(s *runtime.Scheme) error {
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, sourcev1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(s); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	return nil
}

// hub is the four controllers, and what they share.
type hub struct {
	Options
	client   client.Client
	rooms    *rooms
	compiler *template.Compiler
	// surveys has namespaces; the others have the names of their kind.
	surveys, assignments, clusters, placements *feed.Feed
	// sightings is when members were last heard of.
	sightings *sightings
	// itself says which cluster the hub is.
	itself *itself
}

// Register adds the hub's controllers to a manager whose scheme has AddToScheme.
func Register(mgr ctrl.Manager, o Options) error {
	h := &hub{
		Options: o.withDefaults(), client: mgr.GetClient(), rooms: newRooms(), compiler: template.NewCompiler(),
		surveys: &feed.Feed{}, assignments: &feed.Feed{}, clusters: &feed.Feed{}, placements: &feed.Feed{},
	}
	h.itself = &itself{reader: mgr.GetAPIReader()}
	h.sightings = newSightings(h.Options, h.clusters.Add, askWith(mgr.GetAPIReader()))
	if err := h.watchLeases(mgr); err != nil {
		return fmt.Errorf("set up the hub's Leases: %w", err)
	}
	for name, register := range map[string]func(ctrl.Manager) error{
		"surveys": h.registerSurvey, "assignments": h.registerAssigner, "FleetClusters": h.registerReporter, "Placements": h.registerTeller,
	} {
		if err := register(mgr); err != nil {
			return fmt.Errorf("set up the hub's %s: %w", name, err)
		}
	}
	return nil
}

func (h *hub) registerSurvey(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).Named("fleet-survey").
		Watches(&v1alpha1.Placement{}, namespaces(), builder.WithPredicates(intended())).
		Watches(&v1alpha1.FleetCluster{}, namespaces(), builder.WithPredicates(relabelled())).
		WatchesRawSource(h.surveys).
		WithOptions(options(1))
	for _, kind := range slices.Sorted(maps.Keys(sourceKinds())) {
		if slices.Contains(h.Sources, kind) {
			b = b.Watches(sourceKinds()[kind].object, namespaces(), builder.WithPredicates(repinned()))
		}
	}
	return b.Complete(&survey{hub: h, compiler: h.compiler})
}

func (h *hub) registerAssigner(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("fleet-assignment").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(assignable())).
		Owns(&v1alpha1.ClusterAssignment{}, builder.WithPredicates(respecified())).
		Watches(&v1alpha1.ClusterAssignment{}, namesake(), builder.WithPredicates(deleted())).
		Watches(&v1alpha1.ClusterTemplate{}, h.usersOf(), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&v1alpha1.ClusterReport{}, builder.WithPredicates(left())).
		WatchesRawSource(h.assignments).
		WithOptions(options(h.Workers)).
		Complete(&assigner{h})
}

func (h *hub) registerReporter(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("fleet-cluster").
		For(&v1alpha1.FleetCluster{}).
		Owns(&v1alpha1.ClusterReport{}).
		WatchesRawSource(h.clusters).
		WithOptions(options(h.Workers)).
		Complete(&reporter{hub: h, behind: newMoments()})
}

func (h *hub) registerTeller(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("fleet-placement").
		For(&v1alpha1.Placement{}, builder.WithPredicates(intended())).
		Watches(&v1alpha1.ClusterReport{}, h.placementsOf()).
		WatchesRawSource(h.placements).
		WithOptions(options(2)).
		Complete(&teller{hub: h, written: newMoments()})
}

// options limits how often a reconcile is repeated that could not write: the API server may be gone for long,
// and is missed no longer than that.
func options(workers int) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second),
	}
}

// wakePlacements has the statuses of Placements looked at.
func (h *hub) wakePlacements(namespace string, names ...string) {
	for _, name := range names {
		if name != "" {
			h.placements.Add(types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
}

// uncopied reads from the cache without copying: what comes of it is not changed.
func uncopied(namespace string) []client.ListOption {
	return []client.ListOption{client.InNamespace(namespace), client.UnsafeDisableDeepCopy}
}

// peek reads one object from the cache without copying it, and returns false where there is none.
func (h *hub) peek(ctx context.Context, key types.NamespacedName, into client.Object) (bool, error) {
	err := h.client.Get(ctx, key, into, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return true, nil
}
