package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/source"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// helmCharts reconciles HelmCharts: it finds the version that is wanted, has its archive brought or
// packages it, hands it to those who use it, and reports.
type helmCharts struct {
	turns        *atomic.Uint64 // counts reconciles
	client       client.Client
	events       record.EventRecorder
	clock        clock.PassiveClock
	store        *helmchart.Store
	repositories *helmRepositories
	registries   *registry.Client
	artifacts    *artifacts
	published    *published
	attempts     *attempts
	// references is what credentials are read through: a change of one enqueues
	// its charts in self.
	references *references
	self       *feed
	identity   SourceIdentity
	signatures *signatures
	// changed is told of every chart whose artifact changed.
	changed func(context.Context, sourceKey)
}

func helmChartKey(name types.NamespacedName) sourceKey {
	return sourceKey{Kind: sourcev1.HelmChartKind, NamespacedName: name}
}

func helmChartUser(name types.NamespacedName) user { return user{sourcev1.HelmChartKind, name} }

// chartSource returns the key of a chart's source, which is always one of its own namespace.
func chartSource(hc *sourcev1.HelmChart) sourceKey {
	return sourceKey{Kind: hc.Spec.SourceRef.Kind, NamespacedName: types.NamespacedName{Namespace: hc.Namespace, Name: hc.Spec.SourceRef.Name}}
}

// madeChart is a chart that is handed out.
type madeChart struct {
	chart helmchart.Chart
	given helmchart.Given
	// source is the revision of what it was made of; "" where that has none.
	source string
	// verified says by whom it is signed; "" where that was not asked for.
	verified string
}

func (m madeChart) artifact() source.Artifact {
	return source.Artifact{Revision: m.given.Revision, Digest: m.chart.Digest, Verified: m.verified, Tree: m.chart.Tree}
}

// Reconcile implements reconcile.Reconciler.
func (r *helmCharts) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	hc := &sourcev1.HelmChart{}
	err := r.client.Get(ctx, req.NamespacedName, hc)
	if apierrors.IsNotFound(err) || err == nil && !hc.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.gone(ctx, req.NamespacedName, hc)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read HelmChart %s: %w", req.NamespacedName, err)
	}
	held, has := r.recall(ctx, hc)
	if hc.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	before := hc.DeepCopy()
	got, buildErr := r.make(ctx, hc, held, has)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	var passing *passingError
	if has && errors.As(buildErr, &passing) && hc.Generation == hc.Status.ObservedGeneration {
		return ctrl.Result{}, nil // a start: the source is about to come, and wakes it
	}
	if buildErr == nil {
		buildErr = r.hand(ctx, hc, got)
	}
	again := r.report(hc, got, buildErr)
	if !equality.Semantic.DeepEqual(before.Status, hc.Status) {
		if err := r.client.Status().Patch(ctx, hc, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// gone lets go of a chart that is deleted, and of the finalizer that the toolkit's engine leaves.
func (r *helmCharts) gone(ctx context.Context, name types.NamespacedName, hc *sourcev1.HelmChart) error {
	key := helmChartKey(name)
	r.artifacts.drop(key)
	r.published.withdraw(key)
	r.attempts.forget(name)
	r.references.forget(helmChartUser(name))
	r.signatures.forget(key)
	if hc.UID != "" {
		r.store.Forget(string(hc.UID))
	}
	r.changed(ctx, key)
	before := hc.DeepCopy()
	if !controllerutil.RemoveFinalizer(hc, sourcev1.SourceFinalizer) {
		return nil
	}
	if err := client.IgnoreNotFound(r.client.Patch(ctx, hc, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

// recall returns the chart that was handed out last. After a restart it is brought back from the data
// folder before anything else: those who use it need not wait for its source.
func (r *helmCharts) recall(ctx context.Context, hc *sourcev1.HelmChart) (madeChart, bool) {
	what, c, err := r.store.Recall(string(hc.UID))
	if err != nil || hc.Status.Artifact == nil || hc.Status.Artifact.Digest != what.Digest || hc.Status.Artifact.Revision != what.Revision {
		return madeChart{}, false
	}
	held := madeChart{chart: c, given: what, source: hc.Status.ObservedSourceArtifactRevision}
	key := helmChartKey(client.ObjectKeyFromObject(hc))
	if _, ok := r.artifacts.get(key); !ok && r.artifacts.put(key, held.artifact()) {
		r.published.statusOfFile(key, held.artifact(), r.file(held), nil, r.clock.Now())
		r.changed(ctx, key)
	}
	return held, true
}

// hand gives a chart to those who use it.
func (r *helmCharts) hand(ctx context.Context, hc *sourcev1.HelmChart, got madeChart) error {
	got.given.For = hc.Generation
	if err := r.store.Give(string(hc.UID), got.given); err != nil {
		return err
	}
	key := helmChartKey(client.ObjectKeyFromObject(hc))
	if r.artifacts.put(key, got.artifact()) {
		// Before the status is written: that may fail, and nobody waits for it.
		ctrl.LoggerFrom(ctx).Info("fetched", "chart", got.given.Name, "version", got.given.Revision)
		r.changed(ctx, key)
	}
	return nil
}

// wakeUsers enqueues the charts of a source.
func (r *helmCharts) wakeUsers(ctx context.Context, key sourceKey) {
	var list sourcev1.HelmChartList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexSource: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		r.self.add(client.ObjectKeyFromObject(&list.Items[i]), soon)
	}
}

// indexByChartSource is the index of charts by their source.
func indexByChartSource(o client.Object) []string {
	hc, ok := o.(*sourcev1.HelmChart)
	if !ok {
		return nil
	}
	return []string{chartSource(hc).String()}
}

// normalURL is a repository's URL without what makes no difference, to find the one that
// the dependency of a chart names.
func normalURL(text string) string { return strings.TrimRight(text, "/") }

// indexByURL is the index of HelmRepositories by their URL.
func indexByURL(o client.Object) []string {
	repo, ok := o.(*sourcev1.HelmRepository)
	if !ok {
		return nil
	}
	return []string{normalURL(repo.Spec.URL)}
}
