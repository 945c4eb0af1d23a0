package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/report"
)

// managedBy is the label that says who makes an ExternalArtifact.
const managedBy = "app.kubernetes.io/managed-by"

// owns reports whether an ExternalArtifact says that it is this generator's.
func (r *generatorRun) owns(ea *sourcev1.ExternalArtifact) bool {
	maker, ok := r.handouts.named(ea)
	return ok && maker == generatorMaker(r.name)
}

// mine says why an artifact of this name is not the generator's to make.
func (r *generatorRun) mine(ctx context.Context, name string) error {
	return r.handouts.mine(ctx, generatorMaker(r.name), r.beside(name), r.owns)
}

// write brings the ExternalArtifacts up to date and removes those that are no
// longer made. Where something could not be made, nothing is removed. The inventory has
// all that may be there, also when only a part of the work could be done.
func (r *generatorRun) write(ctx context.Context, now *made) error {
	old := r.g.Status.Inventory
	inventory := make([]swapi.ExternalArtifactReference, 0, len(now.outputs))
	known := map[types.NamespacedName]bool{}
	var failed error
	for i := range now.outputs {
		o := &now.outputs[i]
		if o.Tree == nil {
			continue
		}
		var status *meta.Artifact
		if status, failed = r.handouts.ensure(ctx, r.object(o), o.Artifact, watcher, !r.current(), r.now); status != nil {
			known[r.beside(o.name)] = true
			inventory = append(inventory, swapi.ExternalArtifactReference{
				Name: o.name, Namespace: r.g.Namespace, Digest: status.Digest, Filename: path.Base(status.Path),
			})
		}
		if failed != nil {
			break
		}
	}
	for _, ref := range old {
		key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		if known[key] {
			continue
		}
		if failed == nil && now.failed == nil {
			failed = r.remove(ctx, r.g, ref)
			if failed == nil {
				continue
			}
		}
		inventory = append(inventory, ref)
	}
	r.g.Status.Inventory = inventory
	if failed != nil || now.failed != nil {
		return failed
	}
	return r.removeStrays(ctx, known)
}

// removeStrays removes what was handed out once, is made no longer, and is in no inventory,
// because it could not be written.
func (r *generatorRun) removeStrays(ctx context.Context, known map[types.NamespacedName]bool) error {
	for _, name := range r.handouts.madeBy(generatorMaker(r.name)) {
		if known[name] {
			continue
		}
		if err := r.remove(ctx, r.g, swapi.ExternalArtifactReference{Name: name.Name, Namespace: name.Namespace}); err != nil {
			return err
		}
	}
	return nil
}

// current reports whether the status says that this generation of the generator
// was carried out: then labels that it no longer gives are gone too.
func (r *generatorRun) current() bool { return report.IsReady(r.before, observedBy(r.before)) }

func observedBy(o report.Conditioned) int64 {
	if c := report.Condition(o, meta.ReadyCondition); c != nil {
		return c.ObservedGeneration
	}
	return 0
}

// object is the ExternalArtifact of an output, without its status.
func (r *generatorRun) object(o *output) *sourcev1.ExternalArtifact {
	ea := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: o.name, Namespace: r.g.Namespace, Labels: map[string]string{}}}
	ea.SetGroupVersionKind(sourcev1.GroupVersion.WithKind(sourcev1.ExternalArtifactKind))
	if common := r.g.Spec.CommonMetadata; common != nil {
		maps.Copy(ea.Labels, common.Labels)
		ea.Annotations = maps.Clone(common.Annotations)
	}
	maps.Copy(ea.Labels, o.labels)
	ea.Labels[managedBy] = watcher
	ea.Labels[swapi.ArtifactGeneratorLabel] = string(r.g.UID)
	ea.Spec.SourceRef = r.handouts.refer(generatorMaker(r.name))
	return ea
}

// finalize removes what a deleted generator made, and lets it go.
func (r *artifactGenerators) finalize(ctx context.Context, g *swapi.ArtifactGenerator) error {
	if !controllerutil.ContainsFinalizer(g, swapi.Finalizer) {
		return nil
	}
	var failed error
	for _, ref := range g.Status.Inventory {
		failed = errors.Join(failed, r.remove(ctx, g, ref))
	}
	if failed != nil {
		r.events.Event(g, corev1.EventTypeWarning, meta.PruneFailedReason, clip(failed.Error()))
		return failed
	}
	before := g.DeepCopy()
	controllerutil.RemoveFinalizer(g, swapi.Finalizer)
	if err := client.IgnoreNotFound(r.client.Patch(ctx, g, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	r.forget(ctx, client.ObjectKeyFromObject(g))
	return nil
}

// remove deletes an ExternalArtifact of the inventory, if it is still the generator's.
func (r *artifactGenerators) remove(ctx context.Context, g *swapi.ArtifactGenerator, ref swapi.ExternalArtifactReference) error {
	key := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	return r.handouts.remove(ctx, generatorMaker(client.ObjectKeyFromObject(g)), key, func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Labels[swapi.ArtifactGeneratorLabel] == string(g.UID)
	})
}
