package controller

import (
	"context"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

// indexChart is the index of HelmReleases by the source of their chart.
const indexChart = "chart"

func indexByChart(o client.Object) []string {
	h, ok := o.(*helmv2.HelmRelease)
	if !ok {
		return nil
	}
	key, _ := chartOf(h)
	return []string{key.String()}
}

// wakeUsers enqueues the HelmReleases whose chart comes from the source.
func (r *helmReleases) wakeUsers(ctx context.Context, key sourceKey) {
	var list helmv2.HelmReleaseList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexChart: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		name := client.ObjectKeyFromObject(&list.Items[i])
		priority := urgent
		if r.targets.away(name) {
			priority = stranded
		}
		r.self.AddAt(name, priority)
	}
}

// onChart wakes the HelmReleases that have to say why their chart is not there, and the
// one whose template it is when somebody changed or removed it.
func (r *helmReleases) onChart(kind string) handler.EventHandler {
	tell := func(ctx context.Context, o client.Object, changed bool) {
		key := sourceKey{Kind: kind, NamespacedName: client.ObjectKeyFromObject(o)}
		if _, ok := r.artifacts.get(key); !ok || changed {
			r.wakeUsers(ctx, key)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, _ queue) { tell(ctx, e.Object, false) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, _ queue) {
			tell(ctx, e.ObjectNew, e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration())
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) {
			if kind == sourcev1.HelmChartKind {
				r.charts.gone(client.ObjectKeyFromObject(e.Object))
			}
			tell(ctx, e.Object, true)
		},
	}
}
