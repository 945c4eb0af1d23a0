package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/internal/report"
)

// indexDependency is the index of units by what they depend on.
const indexDependency = "spec.dependsOn"

func indexByDependency(o client.Object) []string {
	var names []string
	for _, name := range dependenciesOf(o) {
		names = append(names, name.String())
	}
	return names
}

// dependenciesOf returns the names of the units, of its own kind, that a unit depends on.
func dependenciesOf(o client.Object) []types.NamespacedName {
	deps := spokenBy(o).deps
	names := make([]types.NamespacedName, 0, len(deps))
	for _, d := range deps {
		namespace := d.Namespace
		if namespace == "" {
			namespace = o.GetNamespace()
		}
		names = append(names, types.NamespacedName{Namespace: namespace, Name: d.Name})
	}
	return names
}

// observedOf returns which generation the status of a unit is about, and which revision
// it says is live.
func observedOf(o client.Object) (generation int64, revision string) {
	switch o := o.(type) {
	case *kustomizev1.Kustomization:
		return o.Status.ObservedGeneration, o.Status.LastAppliedRevision
	case *helmv2.HelmRelease:
		return o.Status.ObservedGeneration, ""
	default:
		return 0, ""
	}
}

// dependency returns which dependency is not ready, and "" when all are, and
// whether that is nothing out of the ordinary. behind says what else there is to wait for
// with one that is ready.
func (u *units[T]) dependency(ctx context.Context, o T, behind func(T) string) (waitsFor string, passing bool) {
	own := u.wording.of(o).ready
	for i, name := range dependenciesOf(o) {
		d, err := u.get(ctx, name)
		if apierrors.IsNotFound(err) {
			return fmt.Sprintf("dependency '%s' not found", name), false
		}
		if err != nil {
			return fmt.Sprintf("read dependency '%s': %v", name, err), true
		}
		if own[i] != nil {
			ready, err := readyBy(ctx, own[i], o, d)
			if err != nil {
				return fmt.Sprintf("dependency '%s': spec.dependsOn[%d].readyExpr %v", name, i, err), false
			}
			if !ready {
				return fmt.Sprintf("dependency '%s' is not ready: spec.dependsOn[%d].readyExpr is false", name, i), true
			}
			if !u.additiveReadyExpr {
				continue
			}
		}
		if observed, _ := observedOf(d); !report.IsReady(d, observed) {
			return fmt.Sprintf("dependency '%s' is not ready", name), true
		}
		if why := behind(d); why != "" {
			return fmt.Sprintf("dependency '%s' %s", name, why), true
		}
	}
	return "", false
}

// cycle spells out the cycle of dependencies that the unit is part of, and returns ""
// when there is none.
func (u *units[T]) cycle(ctx context.Context, o T) string {
	if len(spokenBy(o).deps) == 0 {
		return ""
	}
	start := client.ObjectKeyFromObject(o)
	path := u.pathBack(ctx, start, []types.NamespacedName{start}, map[types.NamespacedName]bool{})
	names := make([]string, 0, len(path))
	for _, name := range path {
		names = append(names, name.String())
	}
	return strings.Join(names, " → ")
}

// pathBack looks depth first for a way from the end of path to its start.
func (u *units[T]) pathBack(ctx context.Context, start types.NamespacedName, path []types.NamespacedName, seen map[types.NamespacedName]bool) []types.NamespacedName {
	o, err := u.get(ctx, path[len(path)-1])
	if err != nil {
		return nil
	}
	for _, next := range u.tenancy.admissible(o) {
		if next == start {
			return append(path, next)
		}
		if seen[next] {
			continue
		}
		seen[next] = true
		if found := u.pathBack(ctx, start, append(slices.Clone(path), next), seen); found != nil {
			return found
		}
	}
	return nil
}

// wakeDependents enqueues the units that depend on this one; only those that have their own
// words for when it is ready, and may look at any of its fields, if reading is set.
func (u *units[T]) wakeDependents(ctx context.Context, name types.NamespacedName, reading bool) {
	_ = u.each(ctx, func(o T) { // an error: the cache is stopping
		if !reading || reads(o, name) {
			u.self.AddAt(client.ObjectKeyFromObject(o), soon)
		}
	}, client.MatchingFields{indexDependency: name.String()})
}

// reads reports whether a unit looks at the fields of the dependency.
func reads(o client.Object, dependency types.NamespacedName) bool {
	deps := spokenBy(o).deps
	for i, name := range dependenciesOf(o) {
		if name == dependency && deps[i].ReadyExpr != "" {
			return true
		}
	}
	return false
}

// readsAny reports whether a unit looks at the fields of any dependency, and so may look
// at its own as well.
func readsAny(o client.Object) bool {
	return slices.ContainsFunc(spokenBy(o).deps, func(d meta.DependencyReference) bool { return d.ReadyExpr != "" })
}

// wakeReachable enqueues everything that can be reached from a unit by dependencies:
// those that share a cycle with it are among them.
func (u *units[T]) wakeReachable(ctx context.Context, o client.Object) {
	seen := map[types.NamespacedName]bool{}
	next := u.tenancy.admissible(o)
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		u.self.AddAt(name, soon)
		if d, err := u.get(ctx, name); err == nil {
			next = append(next, u.tenancy.admissible(d)...)
		}
	}
}

// queue is what handlers of events add to.
type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// onNews wakes those whom a change of a unit concerns: its dependents when it became
// ready or moved on, and all that share a cycle with it when its dependencies changed.
func (u *units[T]) onNews() handler.EventHandler {
	changed := func(ctx context.Context, o client.Object) {
		u.wakeDependents(ctx, client.ObjectKeyFromObject(o), false)
		u.wakeReachable(ctx, o)
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, _ queue) {
			if !e.IsInInitialList {
				changed(ctx, e.Object)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, _ queue) {
			before, ok1 := e.ObjectOld.(T)
			after, ok2 := e.ObjectNew.(T)
			if !ok1 || !ok2 {
				return
			}
			u.written.seen(after)
			name := client.ObjectKeyFromObject(after)
			u.wakeDependents(ctx, name, standing(before) == standing(after))
			if !maps.Equal(before.GetLabels(), after.GetLabels()) && readsAny(after) {
				u.self.AddAt(name, soon)
			}
			if before.GetGeneration() != after.GetGeneration() {
				u.wakeReachable(ctx, before)
				u.wakeReachable(ctx, after)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) { changed(ctx, e.Object) },
	}
}

// standing is what dependents look at.
func standing[T unitKind[T]](o T) string {
	c := report.Condition(o, meta.ReadyCondition)
	if c == nil {
		return ""
	}
	generation, revision := observedOf(o)
	return fmt.Sprintf("%s %s %d", c.Status, revision, generation)
}
