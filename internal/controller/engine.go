package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/push"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/observe/health"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// engine is everything that runs in one process, wired together.
type engine struct {
	options Options
	mgr     ctrl.Manager
	log     logr.Logger
	ledger  *observe.Ledger
	meters  *meters
	// repositories is where Git repositories are kept, and identity who asks for sources.
	repositories repositories
	identity     SourceIdentity
	// host is what it lends to the engines of other clusters, and pusher runs them; nil where the cluster is no hub.
	host   *host
	pusher *push.Pusher
	// sources holds the kinds of sources that the cluster has.
	sources map[string]*sourceRoom
	units   *kustomizations
	// releases is nil where the cluster lacks its kinds.
	releases *helmReleases
	// composition is nil where the cluster lacks its kinds.
	composition *composition
	// held is what waits for approval.
	held *heldPlans
	// copies knows the member's own copy of its assignment; nil where the cluster lacks the kind.
	copies cache.Cache
	// kubeconfigs feeds FleetClusters for which a Secret has changed.
	kubeconfigs *feed.Feed
	// enrolments feeds those whose agent is installed with one that has changed.
	enrolments *feed.Feed
	events     record.EventRecorder
	published  *published
	// references is what units and sources read from ConfigMaps and Secrets.
	references *references
	// signatures is what sources in registries ask who signed something.
	signatures *signatures
	// turns counts reconciles.
	turns *atomic.Uint64
	// settled says that all units have been through their first reconcile.
	started atomic.Bool
}

// newEngine wires the stages together: the one place where each learns of the
// others.
func newEngine(ctx context.Context, o Options, mgr ctrl.Manager, cluster *kube.Cluster, h *host, served *artifactserve.Server, budget plan.Budget) *engine {
	e := &engine{
		options: o, mgr: mgr, log: o.Logger, host: h, meters: h.meters, turns: h.turns, held: newHeldPlans(), kubeconfigs: &feed.Feed{}, enrolments: &feed.Feed{},
		repositories: repositories{Store: h.repositories}, sources: map[string]*sourceRoom{},
	}
	if o.guest != nil {
		e.repositories.whose = o.guest.name
	}
	realClock := clock.RealClock{}
	e.signatures = newSignatures(realClock)
	e.references = newReferences(ctx, mgr.GetAPIReader(), cluster.Metadata, realClock, e.wake)
	events := newRecorder(ctx, mgr.GetScheme(), cluster, FieldManager, o.Logger)
	e.events = events
	e.published = &published{server: served, log: o.Logger}
	units := &kustomizations{
		units: newUnits[*kustomizev1.Kustomization](e, events, newArtifacts(), pipeline.New(e.meters.build(o.builder))),
		unitOptions: UnitOptions{
			Budget: budget, AllowRemoteBases: o.AllowRemoteBases, LenientSubstitution: o.LenientSubstitution,
			Decryption: decryptionOf(ctx, mgr, o),
		},
	}
	units.statuses = cluster.Statuses(kustomizev1.GroupVersion.WithKind(kustomizev1.KustomizationKind), "kustomizations")
	units.one = func() *kustomizev1.Kustomization { return &kustomizev1.Kustomization{} }
	units.many = func() client.ObjectList { return &kustomizev1.KustomizationList{} }
	units.address = addressOf
	e.ledger = observe.NewLedger(ctx, observe.Options{
		Cluster: cluster, Manager: FieldManager, Clock: realClock, Log: o.Logger.WithName("ledger"), Notify: units.saw,
		Yields: func(unit types.NamespacedName) bool { return o.Tenancy.Confined(unit.Namespace) },
		Beside: func(id object.ID, giver types.NamespacedName) bool {
			return units.targets.hub.station.wantedBeside(id, giver)
		},
	})
	hub := &delivery{
		Target: pipeline.Target{Cluster: cluster, Ledger: e.ledger, Applier: NewApplier(cluster, e.ledger, o.Requests, e.meters.request)},
		ledger: e.ledger, explain: explainWith(cluster, mgr.GetAPIReader()),
	}
	hub.Applier.Chosen = o.StageKinds
	units.unitOptions.Wake = units.wakeDecrypted
	e.units = units
	units.targets = newTargets(ctx, hub, units.reached(e.targetOptions(realClock)))
	e.identity = newSourceIdentity(uncached{mgr.GetClient(), mgr.GetAPIReader()}, o.Tenancy)
	e.releases = newHelmReleases(ctx, e, cluster, budget)
	units.targets.beside, e.releases.targets.beside = e.releases.targets, units.targets
	return e
}

// targetOptions says how units reach the clusters that they are delivered to.
func (e *engine) targetOptions(c clock.PassiveClock) targetOptions {
	return targetOptions{
		tenancy: e.options.Tenancy, scheme: e.mgr.GetScheme(), mapper: e.mgr.GetRESTMapper(), clock: c, references: e.references,
		remote: remoteOptions{
			kubeconfig: e.options.Kubeconfigs, patience: e.options.patience,
			workers: e.options.Concurrency, requests: e.options.Requests,
			count: e.meters.request, log: e.log.WithName("remote"), identity: e.workloadIdentity,
		},
		manager: FieldManager, group: object.KustomizeGroup,
	}
}

// workloadIdentity asks with a client that reads from the API server: a cache would
// hold all service accounts of the cluster for the one that is asked for now and then.
func (e *engine) workloadIdentity(ctx context.Context, namespace string, data map[string][]byte) (*rest.Config, time.Time, error) {
	c, err := client.New(e.mgr.GetConfig(), client.Options{HTTPClient: e.mgr.GetHTTPClient(), Scheme: e.mgr.GetScheme(), Mapper: e.mgr.GetRESTMapper()})
	if err != nil {
		return nil, time.Time{}, err
	}
	return WorkloadIdentity(c)(ctx, namespace, data)
}

// NewApplier returns the apply stage for a cluster. count may be nil.
func NewApplier(cluster *kube.Cluster, ledger *observe.Ledger, requests int, count func(string)) *apply.Applier {
	if count == nil {
		count = func(string) {}
	}
	return &apply.Applier{
		Cluster: cluster, Manager: FieldManager, Journal: ledger, Observe: ledger,
		Slots: make(chan struct{}, requests), Count: count,
	}
}

// wake enqueues an object that refers to something which changed.
func (e *engine) wake(u user) {
	if source := e.sources[u.Kind]; source != nil {
		source.self.AddAt(u.NamespacedName, soon)
		return
	}
	switch u.Kind {
	case enrolKind:
		e.enrolments.AddAt(u.NamespacedName, soon)
	case pushKind:
		e.pusher.Wake(u.NamespacedName)
	case kustomizev1.KustomizationKind:
		e.units.stir(u.NamespacedName)
	case fleetv1.FleetClusterKind:
		e.kubeconfigs.AddAt(u.NamespacedName, soon)
	case helmv2.HelmReleaseKind:
		if e.releases != nil {
			e.releases.stir(u.NamespacedName)
		}
	default: // the way to a cluster
		e.units.targets.lookAt(u)
		if e.releases != nil {
			e.releases.targets.lookAt(u)
		}
	}
}

// register adds the reconcilers to the manager: one entry per kind.
func (e *engine) register(ctx context.Context) error {
	if err := e.index(ctx); err != nil {
		return err
	}
	// Sources first: units watch those that the cluster has.
	for _, register := range []func(context.Context) error{
		e.registerGitRepositories, e.registerBuckets, e.registerOCIRepositories, e.registerHelmSources,
		e.registerComposition, e.registerUnits, e.registerReleases, e.registerAssignments, e.registerFleet, e.registerLink,
	} {
		if err := register(ctx); err != nil {
			return err
		}
	}
	return e.registerTasks()
}

// registerUnits adds the reconciler of Kustomizations.
func (e *engine) registerUnits(context.Context) error {
	b := ctrl.NewControllerManagedBy(e.mgr).Named("kustomization").
		For(&kustomizev1.Kustomization{}, builder.WithPredicates(requested())).
		Watches(&kustomizev1.Kustomization{}, e.units.onNews(), builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesRawSource(e.units.self).
		WithOptions(controller.Options{MaxConcurrentReconciles: e.options.Concurrency, RateLimiter: patiently()})
	for _, kind := range sourceKinds {
		if !e.units.artifacts.unserved[kind] {
			b = b.Watches(sourceObject(kind), e.units.onSource(kind))
		}
	}
	if err := b.Complete(e.units); err != nil {
		return fmt.Errorf("set up Kustomizations: %w", err)
	}
	return nil
}

// objects returns how many objects the ledgers of both kinds of units know.
func (e *engine) objects() int {
	n := e.units.targets.objects()
	if e.releases != nil {
		n += e.releases.targets.objects()
	}
	return n
}

// registerTasks adds what runs beside the reconcilers.
func (e *engine) registerTasks() error {
	if err := e.mgr.Add(manager.RunnableFunc(e.claim)); err != nil {
		return err
	}
	if err := e.mgr.Add(manager.RunnableFunc(e.audit)); err != nil {
		return err
	}
	for _, a := range arrivalsOf(e.units.targets.hub.Cluster.Metadata, e.arrived) {
		if err := e.mgr.Add(a); err != nil {
			return err
		}
	}
	if e.options.guest == nil { // the memory is that of the process
		err := e.mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return giveBack(ctx, clock.RealClock{}, e.turns.Load) }))
		if err != nil {
			return err
		}
	}
	return e.mgr.AddReadyzCheck("started", func(*http.Request) error {
		if e.started.Load() || e.standsBy() {
			return nil
		}
		return errors.New("the caches are not filled yet")
	})
}

// index adds the indexes over Kustomizations.
func (e *engine) index(ctx context.Context) error {
	indexer := e.mgr.GetFieldIndexer()
	if err := indexer.IndexField(ctx, &kustomizev1.Kustomization{}, indexSource, indexBySource); err != nil {
		return fmt.Errorf("index Kustomizations by source: %w", err)
	}
	if err := indexer.IndexField(ctx, &kustomizev1.Kustomization{}, indexDependency, indexByDependency); err != nil {
		return fmt.Errorf("index Kustomizations by dependency: %w", err)
	}
	return nil
}

// standsBy reports whether another engine leads: one that waits for its turn is as
// ready as it will be, and a rollout that waits for it must not wait for ever.
func (e *engine) standsBy() bool {
	if !e.options.LeaderElect {
		return false
	}
	select {
	case <-e.mgr.Elected():
		return false
	default:
		return true
	}
}

// patiently limits how often a reconcile is repeated that could not write its
// status: the API server may be gone for long, and is missed no longer than that.
func patiently() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](20*time.Millisecond, 5*time.Second)
}

// claim has every unit's inventory known before the first is reconciled.
func (e *engine) claim(ctx context.Context) error {
	if !e.mgr.GetCache().WaitForCacheSync(ctx) {
		return nil
	}
	if err := e.units.claim(ctx); err != nil {
		return err
	}
	if e.releases != nil {
		if err := e.releases.claim(ctx); err != nil {
			return err
		}
	}
	e.started.Store(true)
	return nil
}

// arrived wakes the units that failed for want of what came.
func (e *engine) arrived(n news) {
	e.units.wakeWanting(n)
	if e.releases != nil {
		e.releases.wakeWanting(n)
	}
}

// requested lets through what asks for work: a new spec, an annotation, a
// deletion. What the engine itself writes does not.
func requested() predicate.Predicate {
	return predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{})
}

// explainWith says why an object is not ready, as far as the cluster tells.
func explainWith(cluster *kube.Cluster, reader health.Reader) explainer {
	return func(ctx context.Context, id object.ID, version string) string {
		live, err := (&apply.Applier{Cluster: cluster}).Live(ctx, plan.Action{ID: id, Version: version})
		if err != nil || live == nil {
			return ""
		}
		cause, err := health.Explain(ctx, reader, live)
		if err != nil {
			return err.Error()
		}
		return cause.Message
	}
}

func parseMirrors(pairs []string) (reach.Mirrors, error) {
	var mirrors reach.Mirrors
	for _, pair := range pairs {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || from == "" || to == "" {
			return nil, &failure.Error{Op: "read", Kind: failure.Invalid, Object: "--mirror " + pair,
				Remedy: "write it as FROM=TO, two URL prefixes"}
		}
		mirrors = append(mirrors, reach.Mirror{From: from, To: to})
	}
	return mirrors, nil
}

func isNoMatch(err error) bool { return apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) }
