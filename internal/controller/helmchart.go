package controller

import (
	"context"
	"errors"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/source"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/registry"
)

// helmCharts is the kind of sources that are charts: it finds the version that is wanted, and has its archive
// brought or packages it.
type helmCharts struct {
	*sourceRoom
	store        *helmchart.Store
	repositories *helmRepositories
	registries   *registry.Client
	identity     SourceIdentity
	signatures   *signatures
}

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

// fetch implements sourceKind.
func (r *helmCharts) fetch(ctx context.Context, hc *sourcev1.HelmChart) (fetched, error) {
	held, has := r.held(hc)
	if has {
		r.bring(ctx, r.key(hc), r.told(hc, held)) // those who use it need not wait for its source after a restart
	}
	got, err := r.make(ctx, hc, held, has)
	var passing *passingError
	if has && errors.As(err, &passing) && hc.Generation == hc.Status.ObservedGeneration {
		return fetched{}, &untoldError{} // a start: the source is about to come, and wakes it
	}
	if err == nil && ctx.Err() == nil {
		got.given.For = hc.Generation
		err = r.store.Give(string(hc.UID), got.given)
	}
	return r.told(hc, got), err
}

// held returns the chart that was handed out last.
func (r *helmCharts) held(hc *sourcev1.HelmChart) (madeChart, bool) {
	what, c, err := r.store.Recall(string(hc.UID))
	if err != nil || hc.Status.Artifact == nil || hc.Status.Artifact.Digest != what.Digest || hc.Status.Artifact.Revision != what.Revision {
		return madeChart{}, false
	}
	return madeChart{chart: c, given: what, source: hc.Status.ObservedSourceArtifactRevision}, true
}

// recall implements sourceKind.
func (r *helmCharts) recall(_ context.Context, hc *sourcev1.HelmChart) (fetched, error) {
	held, has := r.held(hc)
	if !has {
		return fetched{}, errors.New("it is not what was handed out last")
	}
	return r.told(hc, held), nil
}

// forget implements sourceKind.
func (r *helmCharts) forget(key sourceKey, uid types.UID) {
	r.signatures.forget(key)
	r.store.Forget(string(uid))
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
