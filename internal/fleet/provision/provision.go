// Package provision is the room in which FleetClusters come to be and go: their template is rendered and
// handed on as a unit of the ordinary pipeline, and what Cluster API, or a kubeconfig, says of the
// cluster is told on them, with the object that holds it up.
//
// It writes the conditions Rendered and Provisioned, the endpoint, the provider and, as long as no report has one, the version
// of Kubernetes, and no other field of a status.
package provision

import (
	"context"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/template"
	"github.com/bowline-dev/bowline/internal/kube"
)

// owner is the field manager of what is written here.
const owner = client.FieldOwner("bowline-provision")

// Deliverer brings what a template rendered to the hub in the way of all other units. There is at most one unit for each cluster,
// in its namespace and owned by it; see UnitName.
type Deliverer interface {
	// Send delivers the files from now on. Where nothing has changed it sends no request. A name that is
	// somebody else's is an error of kind failure.Conflict.
	Send(ctx context.Context, cluster *v1alpha1.FleetCluster, files map[string][]byte, spec kustomizev1.KustomizationSpec) error
	// Recall goes on with what was delivered last, by whichever process of the hub, where this one delivers nothing of the cluster yet.
	Recall(ctx context.Context, cluster *v1alpha1.FleetCluster) error
	// Hold stops the delivery. What was delivered stays as it is, and nobody heals it.
	Hold(ctx context.Context, cluster *v1alpha1.FleetCluster) error
	// Withdraw deletes the unit, and what it delivered, or leaves that where the policy is to orphan. gone says that
	// nothing of it is there any more; until then its events wake the cluster.
	Withdraw(ctx context.Context, cluster *v1alpha1.FleetCluster, policy v1alpha1.DeletionPolicy) (gone bool, err error)
}

// Secrets reads Secrets for FleetClusters, and wakes those for which one has changed.
type Secrets interface {
	// Reading calls read with a reader, and remembers what the cluster read through it and nothing else.
	Reading(cluster types.NamespacedName, read func(client.Reader) error) error
	// Forget ends everything that the cluster refers to.
	Forget(cluster types.NamespacedName)
}

// Options says how clusters are provisioned.
type Options struct {
	Deliverer Deliverer
	// Woken feeds FleetClusters whose unit has to be looked at, and Changed those for which a Secret has changed.
	Woken, Changed source.Source
	Secrets        Secrets
	// Kubeconfigs says what kubeconfigs may hold.
	Kubeconfigs kube.KubeconfigOptions
	// Clock tells the time; nil means that of the machine.
	Clock clock.PassiveClock
	// Workers is how many templates are worked on at one time; 0 means 8.
	Workers int
	// Patience is how long an API server may take to answer; 0 means ten seconds.
	Patience time.Duration
	// Interval is how often a kubeconfig that works is tried again; 0 means three minutes. One that does not work is tried
	// again after Retry; 0 means 30 seconds.
	Interval, Retry time.Duration
	// Look is how often it is looked what holds up a cluster that is not provisioned yet, besides when its
	// Cluster changes; 0 means 15 seconds.
	Look time.Duration
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Workers == 0 {
		o.Workers = 8
	}
	for at, standard := range map[*time.Duration]time.Duration{
		&o.Patience: 10 * time.Second, &o.Interval: 3 * time.Minute, &o.Retry: 30 * time.Second, &o.Look: 15 * time.Second,
	} {
		if *at == 0 {
			*at = standard
		}
	}
	return o
}

// probers is how many kubeconfigs are tried at one time. One that waits for an answer costs next to nothing, and servers
// that hang must not hold up the others.
const probers = 64

// room is what the controllers share.
type room struct {
	Options
	client client.Client
	// reader asks the API server.
	reader client.Reader
}

// Register adds the controllers to a manager whose scheme has the kinds of the fleet and of Kustomizations.
func Register(mgr ctrl.Manager, o Options) error {
	r := &room{Options: o.withDefaults(), client: mgr.GetClient(), reader: mgr.GetAPIReader()}
	compiler := template.NewCompiler()
	for what, register := range map[string]func() error{
		"templates of clusters": func() error { return r.registerBuilder(mgr, compiler) },
		"kubeconfigs":           func() error { return r.registerProber(mgr) },
		"ClusterTemplates":      func() error { return r.registerChecker(mgr, compiler) },
	} {
		if err := register(); err != nil {
			return fmt.Errorf("set up the %s: %w", what, err)
		}
	}
	return nil
}

func (r *room) registerBuilder(mgr ctrl.Manager, compiler *template.Compiler) error {
	b := &clusterBuilder{room: r, compiler: compiler, tree: tree{reader: mgr.GetAPIReader(), mapper: mgr.GetRESTMapper()}}
	c, err := ctrl.NewControllerManagedBy(mgr).Named("fleet-provision").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(buildable())).
		Owns(&kustomizev1.Kustomization{}, builder.WithPredicates(told())).
		Watches(&v1alpha1.ClusterTemplate{}, r.usersOfTemplate(), builder.WithPredicates(rewritten())).
		WatchesRawSource(r.Woken).
		WithOptions(options(r.Workers)).
		Build(b)
	if err != nil {
		return err
	}
	b.clusters = newClusters(mgr, c)
	return nil
}

func (r *room) registerProber(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("fleet-kubeconfig").
		For(&v1alpha1.FleetCluster{}, builder.WithPredicates(rewritten())).
		WatchesRawSource(r.Changed).
		WithOptions(options(probers)).
		Complete(&prober{room: r})
}

func (r *room) registerChecker(mgr ctrl.Manager, compiler *template.Compiler) error {
	return ctrl.NewControllerManagedBy(mgr).Named("fleet-template").
		For(&v1alpha1.ClusterTemplate{}, builder.WithPredicates(rewritten())).
		Watches(&v1alpha1.FleetCluster{}, templateOfUser(), builder.WithPredicates(rewritten())).
		WithOptions(options(1)).
		Complete(&checker{room: r, compiler: compiler})
}

// options limits how often a reconcile is repeated that could not write: the API server may be gone for long,
// and is missed no longer than that.
func options(workers int) controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second),
	}
}
