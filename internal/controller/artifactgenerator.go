package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/source"
)

// watcher is the field manager of ExternalArtifacts that generators make: the
// toolkit's own, so that a cluster changes engine without double ownership.
const watcher = "source-watcher"

// artifactGenerators reconciles ArtifactGenerators: it puts artifacts together out
// of those of their sources, hands them to those who use them, and writes the
// ExternalArtifacts that stand for them. A reconcile never waits.
type artifactGenerators struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	events    record.EventRecorder
	clock     clock.PassiveClock
	artifacts *artifacts
	attempts  *attempts
	tenancy   Tenancy
	self      *feed.Feed
	handouts  *handouts

	mu sync.Mutex
	// made is what each generator has put together last.
	made map[types.NamespacedName]*made // guarded by mu; what it points to belongs to the reconcile of the generator
}

func generatorMaker(name types.NamespacedName) maker { return maker{swapi.ArtifactGeneratorKind, name} }

// made is what a generator has put together.
type made struct {
	// inputs identifies what it was made of, and sources names it.
	inputs  string
	sources []sourceKey
	outputs []output
	failed  error
}

// Reconcile implements reconcile.Reconciler.
func (r *artifactGenerators) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	g, err := r.get(ctx, req.NamespacedName)
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(ctx, req.NamespacedName)
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !g.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.finalize(ctx, g)
	}
	if controllerutil.AddFinalizer(g, swapi.Finalizer) {
		before := g.DeepCopy()
		controllerutil.RemoveFinalizer(before, swapi.Finalizer)
		if err := r.client.Patch(ctx, g, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("add the finalizer: %w", err)
		}
	}
	run := &generatorRun{artifactGenerators: r, g: g, before: g.DeepCopy(), now: r.clock.Now(), name: req.NamespacedName}
	again := run.do(ctx)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	if !equality.Semantic.DeepEqual(run.before.Status, g.Status) {
		if err := writeStatus(ctx, r.client, g, run.before); err != nil {
			return catchUp(err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// writeStatus writes what differs in the status of an object that was read as before. The lock keeps a status that is
// older than what was written last from being the base of the next.
func writeStatus(ctx context.Context, c client.Client, o, before client.Object) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := c.Status().Patch(ctx, o, patch, owner); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// behindFor is how long a cache may take to tell what was written before it is asked again.
const behindFor = 100 * time.Millisecond

// catchUp is what a reconcile returns that could not write a status. That the cache was behind is no failure: the object is
// looked at again when that has passed, because not every change of it is an event.
func catchUp(err error) (ctrl.Result, error) {
	if behind(err) {
		return ctrl.Result{RequeueAfter: behindFor}, nil
	}
	return ctrl.Result{}, err
}

// generatorRun is one reconcile of one ArtifactGenerator.
type generatorRun struct {
	*artifactGenerators
	g      *swapi.ArtifactGenerator // changed as the run goes
	before *swapi.ArtifactGenerator // as it was read
	name   types.NamespacedName
	now    time.Time
}

// do takes the generator through its steps and returns when to come back if nothing
// happens until then; 0 for never.
func (r *generatorRun) do(ctx context.Context) time.Duration {
	err := r.valid()
	if r.g.IsDisabled() {
		if sources, missing := r.sources(ctx); err == nil && missing == nil {
			r.resume(ctx, r.make(sources))
		}
		return 0
	}
	if err != nil {
		return r.fail(reasonOfSpec(err), err)
	}
	sources, err := r.sources(ctx)
	if err != nil {
		return r.waitForSources(err)
	}
	r.attempts.of(r.name).blockedSince = time.Time{}
	now := r.make(sources)
	if err := r.hand(ctx, now); err != nil {
		return r.fail(meta.ReconciliationFailedReason, err)
	}
	if err := r.write(ctx, now); err != nil {
		return r.fail(meta.ReconciliationFailedReason, err)
	}
	r.g.Status.ObservedSourcesDigest = observedDigest(sources)
	if now.failed != nil {
		return r.fail(meta.BuildFailedReason, now.failed)
	}
	return r.succeed()
}

// make puts the artifacts together, unless that was done already with the same sources.
func (r *generatorRun) make(sources map[string]source.Artifact) *made {
	inputs := inputsOf(r.g, sources)
	r.mu.Lock()
	last := r.made[r.name]
	r.mu.Unlock()
	if last != nil && last.inputs == inputs {
		return last
	}
	now := &made{inputs: inputs}
	now.outputs, now.failed = assemble(r.g, sources)
	for i := range r.g.Spec.Sources {
		now.sources = append(now.sources, generatorSource(r.g, &r.g.Spec.Sources[i]))
	}
	return now
}

// sources returns the artifacts of the generator's sources by alias. The error says why one of them has none.
func (r *generatorRun) sources(ctx context.Context) (map[string]source.Artifact, error) {
	out := map[string]source.Artifact{}
	for i := range r.g.Spec.Sources {
		ref := &r.g.Spec.Sources[i]
		key := generatorSource(r.g, ref)
		artifact, ok := r.artifacts.get(key)
		if !ok {
			why, passing := r.artifacts.missing(ctx, r.client, key, "spec.sources")
			return nil, &missingError{why: why, passing: passing}
		}
		out[ref.Alias] = artifact
	}
	return out, nil
}

// missingError says why a source has no artifact.
type missingError struct {
	why string
	// passing is true when that is nothing out of the ordinary.
	passing bool
}

func (e *missingError) Error() string { return e.why }

// hand gives the artifacts to those who use them, before anything is written: that
// may fail, and nobody waits for it. An artifact whose name somebody else's has is
// held back.
func (r *generatorRun) hand(ctx context.Context, now *made) error {
	var foreign error
	var kept []output
	for _, o := range now.outputs {
		if err := r.mine(ctx, o.name); err != nil {
			foreign = errors.Join(foreign, err)
			continue
		}
		kept = append(kept, o)
		if o.Tree == nil {
			continue
		}
		r.handouts.hand(ctx, generatorMaker(r.name), r.beside(o.name), o.Artifact)
	}
	if foreign != nil {
		// Its inputs stay unknown, so that it is looked at anew.
		now = &made{outputs: kept, failed: now.failed, sources: now.sources}
	}
	r.mu.Lock()
	r.made[r.name] = now
	r.mu.Unlock()
	return foreign
}

// resume brings the artifacts of a suspended generator back after a restart, as far as
// they are still what the ExternalArtifacts say.
func (r *generatorRun) resume(ctx context.Context, now *made) {
	for _, o := range now.outputs {
		key := artifactKey(r.beside(o.name))
		ea := &sourcev1.ExternalArtifact{}
		if _, ok := r.artifacts.get(key); ok || o.Tree == nil || r.client.Get(ctx, key.NamespacedName, ea) != nil {
			continue
		}
		if made := ea.Status.Artifact; made != nil && made.Revision == o.Revision && r.owns(ea) {
			r.handouts.hand(ctx, generatorMaker(r.name), key.NamespacedName, o.Artifact)
		}
	}
}

// forget drops all that is known of a generator that is gone.
func (r *artifactGenerators) forget(ctx context.Context, name types.NamespacedName) {
	r.attempts.forget(name)
	r.mu.Lock()
	delete(r.made, name)
	r.mu.Unlock()
	for _, artifact := range r.handouts.madeBy(generatorMaker(name)) {
		r.handouts.drop(ctx, artifact)
	}
}

// beside is the name of an object in the generator's namespace.
func (r *generatorRun) beside(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.g.Namespace, Name: name}
}

func (r *artifactGenerators) get(ctx context.Context, name types.NamespacedName) (*swapi.ArtifactGenerator, error) {
	g := &swapi.ArtifactGenerator{}
	return g, r.client.Get(ctx, name, g)
}

// exists reports whether there is a generator of that name which is not on its way out.
func (r *artifactGenerators) exists(ctx context.Context, name types.NamespacedName) bool {
	g, err := r.get(ctx, name)
	return err == nil && g.DeletionTimestamp.IsZero()
}

// indexBySources is the index of generators by what they are made of.
func indexBySources(o client.Object) []string {
	g, ok := o.(*swapi.ArtifactGenerator)
	if !ok {
		return nil
	}
	keys := map[string]bool{}
	for i := range g.Spec.Sources {
		keys[generatorSource(g, &g.Spec.Sources[i]).String()] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

func generatorSource(g *swapi.ArtifactGenerator, ref *swapi.SourceReference) sourceKey {
	namespace := ref.Namespace
	if namespace == "" {
		namespace = g.Namespace
	}
	return sourceKey{Kind: ref.Kind, NamespacedName: types.NamespacedName{Namespace: namespace, Name: ref.Name}}
}
