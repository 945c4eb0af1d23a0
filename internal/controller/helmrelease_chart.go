package controller

import (
	"context"
	"fmt"
	"maps"
	"sync"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// chartKinds are the kinds of sources that spec.chartRef accepts.
var chartKinds = []string{sourcev1.HelmChartKind, sourcev1.OCIRepositoryKind, sourcev1.ExternalArtifactKind}

// chartOf returns the key of the source that a HelmRelease takes its chart from, and
// the field that names it.
func chartOf(h *helmv2.HelmRelease) (sourceKey, string) {
	if ref := h.Spec.ChartRef; ref != nil {
		namespace := ref.Namespace
		if namespace == "" {
			namespace = h.Namespace
		}
		return sourceKey{ref.Kind, types.NamespacedName{Namespace: namespace, Name: ref.Name}}, "spec.chartRef"
	}
	return sourceKey{sourcev1.HelmChartKind, templateKey(h)}, "spec.chart"
}

// templateKey names the HelmChart that spec.chart is the template of.
func templateKey(h *helmv2.HelmRelease) types.NamespacedName {
	namespace := h.Namespace
	if h.Spec.Chart != nil {
		namespace = h.Spec.Chart.GetNamespace(h.Namespace)
	}
	return types.NamespacedName{Namespace: namespace, Name: h.GetHelmChartName()}
}

// chartTemplates remembers the HelmCharts as they were last written: the cache may be
// behind, and does not tell what a template said before.
type chartTemplates struct {
	mu      sync.Mutex
	applied map[types.NamespacedName]*sourcev1.HelmChart // guarded by mu; by name of the HelmChart
}

func newChartTemplates() *chartTemplates {
	return &chartTemplates{applied: map[types.NamespacedName]*sourcev1.HelmChart{}}
}

func (c *chartTemplates) note(chart *sourcev1.HelmChart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied[client.ObjectKeyFromObject(chart)] = chart
}

func (c *chartTemplates) noted(name types.NamespacedName) *sourcev1.HelmChart {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applied[name]
}

// gone forgets a HelmChart that was deleted.
func (c *chartTemplates) gone(name types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.applied, name)
}

// template brings the HelmChart of spec.chart up to date, and removes the one of before
// when there is another or none any more.
func (r *helmReleaseRun) template(ctx context.Context) error {
	key := types.NamespacedName{}
	if r.h.Spec.Chart != nil {
		key = templateKey(r.h)
	}
	if was := r.h.Status.HelmChart; was != "" && (r.h.Spec.Chart == nil || was != key.String()) {
		if err := r.removeChart(ctx, r.h); err != nil {
			return err
		}
		r.h.Status.HelmChart = ""
	}
	if r.h.Spec.Chart == nil {
		return nil
	}
	want := chartFrom(r.h)
	if !r.chartStands(ctx, key, want) {
		if err := r.chartRival(ctx, key); err != nil {
			return err
		}
		if err := r.applyChart(ctx, want); err != nil {
			return err
		}
	}
	r.h.Status.HelmChart = key.String()
	return nil
}

// chartStands reports whether the HelmChart is as it should be.
func (r *helmReleaseRun) chartStands(ctx context.Context, key types.NamespacedName, want *sourcev1.HelmChart) bool {
	noted := r.charts.noted(key)
	if noted != nil && !(maps.Equal(noted.Labels, want.Labels) && maps.Equal(noted.Annotations, want.Annotations)) {
		return false
	}
	there := &sourcev1.HelmChart{}
	err := r.client.Get(ctx, key, there)
	if noted != nil && (apierrors.IsNotFound(err) || err == nil && versionOf(there) < versionOf(noted)) {
		there, err = noted, nil // the cache is behind
	}
	return err == nil && there.DeletionTimestamp.IsZero() && standsAs(there, want)
}

// chartUnseen reports whether a chart is that of the template and was made a moment ago: the cache is behind, and nobody has to create it.
func (r *helmReleaseRun) chartUnseen(ctx context.Context, key sourceKey) bool {
	return key.Kind == sourcev1.HelmChartKind && r.charts.noted(key.NamespacedName) != nil && apierrors.IsNotFound(r.client.Get(ctx, key.NamespacedName, &sourcev1.HelmChart{}))
}

// standsAs compares what a template says. What others add to the metadata stays.
func standsAs(there, want *sourcev1.HelmChart) bool {
	spec := want.Spec.DeepCopy()
	if spec.Version == "" {
		spec.Version = there.Spec.Version // the default that the API server fills in
	}
	if spec.ReconcileStrategy == "" {
		spec.ReconcileStrategy = there.Spec.ReconcileStrategy
	}
	spec.SourceRef.APIVersion = there.Spec.SourceRef.APIVersion
	spec.Suspend = there.Spec.Suspend // others' to say
	return holds(there.Labels, want.Labels) && holds(there.Annotations, want.Annotations) && equality.Semantic.DeepEqual(there.Spec, *spec)
}

// chartFrom is the HelmChart that a template describes.
func chartFrom(h *helmv2.HelmRelease) *sourcev1.HelmChart {
	t := h.Spec.Chart
	key := templateKey(h)
	chart := &sourcev1.HelmChart{
		ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, Labels: map[string]string{}},
		Spec: sourcev1.HelmChartSpec{
			Chart: t.Spec.Chart, Version: t.Spec.Version,
			SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: t.Spec.SourceRef.Kind, Name: t.Spec.SourceRef.Name},
			Interval:  t.GetInterval(h.Spec.Interval), ReconcileStrategy: t.Spec.ReconcileStrategy,
			ValuesFiles: t.Spec.ValuesFiles, IgnoreMissingValuesFiles: t.Spec.IgnoreMissingValuesFiles,
		},
	}
	if v := t.Spec.Verify; v != nil {
		chart.Spec.Verify = &sourcev1.HelmChartVerification{Provider: v.Provider, SecretRef: v.SecretRef}
	}
	if m := t.ObjectMeta; m != nil {
		maps.Copy(chart.Labels, m.Labels)
		chart.Annotations = maps.Clone(m.Annotations)
	}
	chart.Labels[helmv2.GroupVersion.Group+"/name"] = h.Name
	chart.Labels[helmv2.GroupVersion.Group+"/namespace"] = h.Namespace
	return chart
}

// applyChart writes a HelmChart with server-side apply: what a template no longer says
// goes.
func (r *helmReleases) applyChart(ctx context.Context, chart *sourcev1.HelmChart) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(chart)
	if err != nil {
		return fmt.Errorf("write HelmChart %s/%s: %w", chart.Namespace, chart.Name, err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": sourcev1.GroupVersion.String(), "kind": sourcev1.HelmChartKind,
		"metadata": map[string]any{"name": chart.Name, "namespace": chart.Namespace}, "spec": content["spec"],
	}}
	u.SetLabels(chart.Labels)
	u.SetAnnotations(chart.Annotations)
	err = r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(HelmFieldManager))
	if err == nil {
		chart.ResourceVersion = u.GetResourceVersion()
		r.charts.note(chart)
		return nil
	}
	f := &failure.Error{Op: "write", Kind: failure.Unavailable, Object: "HelmChart " + chart.Namespace + "/" + chart.Name, Err: err}
	switch {
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		f.Kind, f.Remedy = failure.Invalid, "correct spec.chart"
	case apierrors.IsForbidden(err):
		f.Kind, f.Remedy = failure.Denied, "give the engine's identity the right to apply HelmCharts"
	case apierrors.IsNotFound(err):
		f.Kind, f.Remedy = failure.NotFound, "create the namespace, or correct spec.chart.spec.sourceRef.namespace"
	}
	return f
}

// removeChart deletes the HelmChart that the status names, if it still says that it is of
// this HelmRelease.
func (r *helmReleases) removeChart(ctx context.Context, h *helmv2.HelmRelease) error {
	namespace, name := h.Status.GetHelmChart()
	if name == "" {
		return nil
	}
	key := types.NamespacedName{Namespace: namespace, Name: name}
	chart := &sourcev1.HelmChart{}
	err := r.client.Get(ctx, key, chart)
	if err == nil && ownedBy(chart, h) {
		err = r.client.Delete(ctx, chart, client.Preconditions{UID: &chart.UID})
	} else if apierrors.IsNotFound(err) && r.charts.noted(key) != nil {
		// Written a moment ago: the cache does not have it yet.
		err = r.client.Delete(ctx, &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete HelmChart %s: %w", key, err)
	}
	r.charts.gone(key)
	return nil
}

func ownedBy(o client.Object, h *helmv2.HelmRelease) bool {
	owner, ok := object.OwnerOf(o.GetLabels(), helmv2.GroupVersion.Group)
	return ok && owner.Name == h.Name && owner.Namespace == h.Namespace
}
