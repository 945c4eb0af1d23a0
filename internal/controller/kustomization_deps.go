package controller

import (
	"context"
	"errors"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/pipeline"
)

// indexSource is the index of Kustomizations by their source.
const indexSource = "spec.sourceRef"

func indexBySource(o client.Object) []string {
	k, ok := o.(*kustomizev1.Kustomization)
	if !ok {
		return nil
	}
	return []string{sourceOf(k).String()}
}

// String names the source for indexes and messages.
func (s sourceKey) String() string { return s.Kind + " " + s.NamespacedName.String() }

// dependency returns what there is to wait for before the Kustomization's turn.
func (r *kustomizationRun) dependency(ctx context.Context) (waitsFor string, passing bool) {
	return r.units.dependency(ctx, r.k, func(d *kustomizev1.Kustomization) string {
		key := sourceOf(r.k)
		if a, ok := r.artifacts.get(key); ok && sourceOf(d) == key && a.Revision != d.Status.LastAppliedRevision {
			return "is not at revision " + a.Revision + " yet"
		}
		return ""
	})
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
		r.self.AddAt(name, priority)
	}
}
