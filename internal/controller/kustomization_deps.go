package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/report"
)

// Names of the indexes over Kustomizations.
const (
	indexSource     = "spec.sourceRef"
	indexDependency = "spec.dependsOn"
)

func indexBySource(o client.Object) []string {
	k, ok := o.(*kustomizev1.Kustomization)
	if !ok {
		return nil
	}
	return []string{sourceOf(k).String()}
}

func indexByDependency(o client.Object) []string {
	k, ok := o.(*kustomizev1.Kustomization)
	if !ok {
		return nil
	}
	var names []string
	for _, name := range dependenciesOf(k) {
		names = append(names, name.String())
	}
	return names
}

// String names the source for indexes and messages.
func (s sourceKey) String() string { return s.Kind + " " + s.NamespacedName.String() }

// dependency returns which dependency is not ready, and "" when all are, and
// whether that is nothing out of the ordinary.
func (r *kustomizationRun) dependency(ctx context.Context) (waitsFor string, passing bool) {
	own := r.wording.of(r.k).ready
	for i, name := range dependenciesOf(r.k) {
		d, err := r.get(ctx, name)
		if apierrors.IsNotFound(err) {
			return fmt.Sprintf("dependency '%s' not found", name), false
		}
		if err != nil {
			return fmt.Sprintf("read dependency '%s': %v", name, err), true
		}
		if own[i] != nil {
			ready, err := readyBy(ctx, own[i], r.k, d)
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
		if key := sourceOf(r.k); sourceOf(d) == key {
			if a, ok := r.artifacts.get(key); ok && a.Revision != d.Status.LastAppliedRevision {
				return fmt.Sprintf("dependency '%s' is not at revision %s yet", name, a.Revision), true
			}
		}
	}
	return "", false
}

// get returns a Kustomization as it was last written by anybody we know of.
func (r *kustomizations) get(ctx context.Context, name types.NamespacedName) (*kustomizev1.Kustomization, error) {
	k := &kustomizev1.Kustomization{}
	if err := r.client.Get(ctx, name, k); err != nil {
		return nil, err
	}
	return r.written.freshest(k), nil
}

// cycle spells out the cycle of dependencies that the Kustomization is part of,
// and returns "" when there is none.
func (r *kustomizationRun) cycle(ctx context.Context) string {
	start := client.ObjectKeyFromObject(r.k)
	path := r.pathBack(ctx, start, []types.NamespacedName{start}, map[types.NamespacedName]bool{})
	names := make([]string, 0, len(path))
	for _, name := range path {
		names = append(names, name.String())
	}
	return strings.Join(names, " → ")
}

// pathBack looks depth first for a way from the end of path to its start.
func (r *kustomizationRun) pathBack(ctx context.Context, start types.NamespacedName, path []types.NamespacedName, seen map[types.NamespacedName]bool) []types.NamespacedName {
	k, err := r.get(ctx, path[len(path)-1])
	if err != nil {
		return nil
	}
	for _, next := range r.tenancy.admissible(k) {
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

// neighbours returns the units of the same source, those that are suspended too:
// what they want is not theirs to lose. Objects of another cluster and what this
// version does not deliver are not among them.
func (r *kustomizationRun) neighbours(ctx context.Context) []pipeline.Neighbour {
	var list kustomizev1.KustomizationList
	key := sourceOf(r.k)
	if err := r.client.List(ctx, &list, client.MatchingFields{indexSource: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping
	}
	here := r.targets.sameCluster(r.target)
	units := make([]pipeline.Neighbour, 0, len(list.Items))
	for i := range list.Items {
		if !list.Items[i].DeletionTimestamp.IsZero() || !here(addressOf(&list.Items[i])) ||
			r.tenancy.Confined(list.Items[i].Namespace) && !r.tenancy.Confined(r.k.Namespace) { // the ledger says why
			continue
		}
		unit, err := r.prepare(ctx, &list.Items[i])
		if errors.Is(err, failure.Of(failure.Unsupported)) || errors.Is(err, failure.Of(failure.Refused)) {
			continue // it delivers nothing
		}
		if err != nil {
			// What it lacks concerns this unit too: read it in its own name as well, so
			// that it is woken when it comes.
			unit, err = r.prepareFor(ctx, client.ObjectKeyFromObject(r.k), &list.Items[i])
		}
		units = append(units, pipeline.Neighbour{Unit: unit, Err: err})
	}
	return units
}

// wakeDependents enqueues the Kustomizations that depend on this one.
func (r *kustomizations) wakeDependents(ctx context.Context, name types.NamespacedName) {
	var list kustomizev1.KustomizationList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexDependency: name.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		r.self.add(client.ObjectKeyFromObject(&list.Items[i]), soon)
	}
}

// wakeWanting enqueues the Kustomizations that failed for want of what came.
func (r *kustomizations) wakeWanting(n news) {
	for _, unit := range r.attempts.arrived(n) {
		r.self.add(unit, soon)
	}
}

// wakeReachable enqueues everything that can be reached from k by dependencies:
// those that share a cycle with it are among them.
func (r *kustomizations) wakeReachable(ctx context.Context, k *kustomizev1.Kustomization) {
	seen := map[types.NamespacedName]bool{}
	next := r.tenancy.admissible(k)
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		r.self.add(name, soon)
		if d, err := r.get(ctx, name); err == nil {
			next = append(next, r.tenancy.admissible(d)...)
		}
	}
}

// wakeUsers enqueues the Kustomizations of a source, those first for which it
// means something else than before.
func (r *kustomizations) wakeUsers(ctx context.Context, key sourceKey) {
	var list kustomizev1.KustomizationList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexSource: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	artifact, ok := r.artifacts.get(key)
	for i := range list.Items {
		name := client.ObjectKeyFromObject(&list.Items[i])
		priority := routine
		if r.targets.away(name) {
			priority = stranded
		} else if ok && r.pipeline.Affected(name, artifact) {
			priority = urgent
		}
		r.self.add(name, priority)
	}
}
