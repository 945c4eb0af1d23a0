package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/internal/report"
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

func indexReleasesByDependency(o client.Object) []string {
	h, ok := o.(*helmv2.HelmRelease)
	if !ok {
		return nil
	}
	var names []string
	for _, name := range releasesBefore(h) {
		names = append(names, name.String())
	}
	return names
}

// releasesBefore returns the names of the HelmReleases that h depends on.
func releasesBefore(h *helmv2.HelmRelease) []types.NamespacedName {
	names := make([]types.NamespacedName, 0, len(h.Spec.DependsOn))
	for _, d := range h.Spec.DependsOn {
		namespace := d.Namespace
		if namespace == "" {
			namespace = h.Namespace
		}
		names = append(names, types.NamespacedName{Namespace: namespace, Name: d.Name})
	}
	return names
}

// dependency returns which dependency is not ready, and "" when all are, and
// whether that is nothing out of the ordinary.
func (r *helmReleaseRun) dependency(ctx context.Context) (waitsFor string, passing bool) {
	own := r.wording.of(r.h).ready
	for i, name := range releasesBefore(r.h) {
		d, err := r.get(ctx, name)
		if apierrors.IsNotFound(err) {
			return fmt.Sprintf("dependency '%s' not found", name), false
		}
		if err != nil {
			return fmt.Sprintf("read dependency '%s': %v", name, err), true
		}
		if own[i] != nil {
			ready, err := readyBy(ctx, own[i], r.h, d)
			if err != nil {
				return fmt.Sprintf("dependency '%s': spec.dependsOn[%d].readyExpr %v", name, i, err), false
			}
			if !ready {
				return fmt.Sprintf("dependency '%s' is not ready: spec.dependsOn[%d].readyExpr is false", name, i), true
			}
			if !r.additiveReadyExpr {
				continue
			}
		}
		if !report.IsReady(d, d.Status.ObservedGeneration) {
			return fmt.Sprintf("dependency '%s' is not ready", name), true
		}
	}
	return "", false
}

// get returns a HelmRelease as it was last written by anybody we know of.
func (r *helmReleases) get(ctx context.Context, name types.NamespacedName) (*helmv2.HelmRelease, error) {
	h := &helmv2.HelmRelease{}
	if err := r.client.Get(ctx, name, h); err != nil {
		return nil, err
	}
	return r.written.freshest(h), nil
}

// cycle spells out the cycle of dependencies that the HelmRelease is part of,
// and returns "" when there is none.
func (r *helmReleaseRun) cycle(ctx context.Context) string {
	if len(r.h.Spec.DependsOn) == 0 {
		return ""
	}
	start := client.ObjectKeyFromObject(r.h)
	path := r.pathBack(ctx, start, []types.NamespacedName{start}, map[types.NamespacedName]bool{})
	names := make([]string, 0, len(path))
	for _, name := range path {
		names = append(names, name.String())
	}
	return strings.Join(names, " → ")
}

// pathBack looks depth first for a way from the end of path to its start.
func (r *helmReleaseRun) pathBack(ctx context.Context, start types.NamespacedName, path []types.NamespacedName, seen map[types.NamespacedName]bool) []types.NamespacedName {
	h, err := r.get(ctx, path[len(path)-1])
	if err != nil {
		return nil
	}
	for _, next := range r.tenancy.admissibleReleases(h) {
		if next == start {
			return append(path, next)
		}
		if seen[next] {
			continue
		}
		seen[next] = true
		if found := r.pathBack(ctx, start, append(slices.Clone(path), next), seen); found != nil {
			return found
		}
	}
	return nil
}

// wakeDependents enqueues the HelmReleases that depend on this one; only those that look
// at its fields, if reading is set.
func (r *helmReleases) wakeDependents(ctx context.Context, name types.NamespacedName, reading bool) {
	var list helmv2.HelmReleaseList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexDependency: name.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		if !reading || readsRelease(&list.Items[i], name) {
			r.self.add(client.ObjectKeyFromObject(&list.Items[i]), soon)
		}
	}
}

// readsRelease reports whether h looks at the fields of the dependency.
func readsRelease(h *helmv2.HelmRelease, dependency types.NamespacedName) bool {
	for i, name := range releasesBefore(h) {
		if name == dependency && h.Spec.DependsOn[i].ReadyExpr != "" {
			return true
		}
	}
	return false
}

// readsAnyRelease reports whether h looks at the fields of any dependency, and so may
// look at its own as well.
func readsAnyRelease(h *helmv2.HelmRelease) bool {
	return slices.ContainsFunc(h.Spec.DependsOn, func(d meta.DependencyReference) bool { return d.ReadyExpr != "" })
}

// wakeReachable enqueues everything that can be reached from h by dependencies:
// those that share a cycle with it are among them.
func (r *helmReleases) wakeReachable(ctx context.Context, h *helmv2.HelmRelease) {
	seen := map[types.NamespacedName]bool{}
	next := r.tenancy.admissibleReleases(h)
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		r.self.add(name, soon)
		if d, err := r.get(ctx, name); err == nil {
			next = append(next, r.tenancy.admissibleReleases(d)...)
		}
	}
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
		r.self.add(name, priority)
	}
}

// wakeWanting enqueues the HelmReleases that failed for want of what came.
func (r *helmReleases) wakeWanting(n news) {
	for _, unit := range r.attempts.arrived(n) {
		r.self.add(unit, soon)
	}
}

// onNews wakes those whom a change of a HelmRelease concerns: its dependents when it
// became ready, and all that share a cycle with it when its dependencies changed.
func (r *helmReleases) onNews() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, _ queue) {
			if h, ok := e.Object.(*helmv2.HelmRelease); ok && !e.IsInInitialList {
				r.wakeDependents(ctx, client.ObjectKeyFromObject(h), false)
				r.wakeReachable(ctx, h)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, _ queue) {
			before, ok1 := e.ObjectOld.(*helmv2.HelmRelease)
			after, ok2 := e.ObjectNew.(*helmv2.HelmRelease)
			if !ok1 || !ok2 {
				return
			}
			r.written.seen(after)
			r.wakeDependents(ctx, client.ObjectKeyFromObject(after), standingOfRelease(before) == standingOfRelease(after))
			if !maps.Equal(before.Labels, after.Labels) && readsAnyRelease(after) {
				r.self.add(client.ObjectKeyFromObject(after), soon)
			}
			if before.Generation != after.Generation {
				r.wakeReachable(ctx, before)
				r.wakeReachable(ctx, after)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) {
			if h, ok := e.Object.(*helmv2.HelmRelease); ok {
				r.wakeDependents(ctx, client.ObjectKeyFromObject(h), false)
				r.wakeReachable(ctx, h)
			}
		},
	}
}

// standingOfRelease is what dependents look at.
func standingOfRelease(h *helmv2.HelmRelease) string {
	c := report.Condition(h, meta.ReadyCondition)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s %d", c.Status, h.Status.ObservedGeneration)
}

// onChart wakes the HelmReleases that have to say why their chart is not there, and the
// one whose template it is when somebody changed or removed it.
func (r *helmReleases) onChart(kind string) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
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
