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
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
)

// managedBy is the label that says who makes an ExternalArtifact.
const managedBy = "app.kubernetes.io/managed-by"

// owns reports whether an ExternalArtifact says that it is this generator's.
func (r *generatorRun) owns(ea *sourcev1.ExternalArtifact) bool {
	maker, ok := generatorOf(ea)
	return ok && maker == r.name
}

// generatorOf returns the generator that an ExternalArtifact says it is from.
func generatorOf(ea *sourcev1.ExternalArtifact) (types.NamespacedName, bool) {
	ref := ea.Spec.SourceRef
	if ref == nil || ref.Kind != swapi.ArtifactGeneratorKind || ref.APIVersion != "" && ref.APIVersion != swapi.GroupVersion.String() {
		return types.NamespacedName{}, false
	}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = ea.Namespace
	}
	return types.NamespacedName{Namespace: namespace, Name: ref.Name}, namespace == ea.Namespace
}

// mine says why an artifact of this name is not the generator's to make.
func (r *generatorRun) mine(ctx context.Context, name string) error {
	key := types.NamespacedName{Namespace: r.g.Namespace, Name: name}
	taken := func(by string) error {
		return &failure.Error{Op: "make", Object: "ExternalArtifact " + key.String(), Kind: failure.Conflict,
			Err: fmt.Errorf("it is there and belongs to %s", by), Remedy: "give the artifact another name, or delete the one that is there"}
	}
	ea := &sourcev1.ExternalArtifact{}
	err := r.client.Get(ctx, key, ea)
	switch {
	case apierrors.IsNotFound(err):
		if maker, ok := r.maker(key); ok && maker != r.name {
			return taken("ArtifactGenerator " + maker.String())
		}
		return nil
	case err != nil:
		return fmt.Errorf("read ExternalArtifact %s: %w", key, err)
	case r.owns(ea):
		return nil
	case ea.Spec.SourceRef == nil:
		return taken("somebody else")
	default:
		return taken(ea.Spec.SourceRef.Kind + " " + ea.Spec.SourceRef.Name)
	}
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
		if status, failed = r.ensure(ctx, o); status != nil {
			known[types.NamespacedName{Namespace: r.g.Namespace, Name: o.name}] = true
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
	for _, name := range r.madeBy(r.name) {
		if known[name] {
			continue
		}
		if err := r.remove(ctx, r.g, swapi.ExternalArtifactReference{Name: name.Name, Namespace: name.Namespace}); err != nil {
			return err
		}
	}
	return nil
}

// ensure writes one ExternalArtifact, as far as it is not yet what it should be. It returns
// what its status is to say as soon as the object is there, even with an error.
func (r *generatorRun) ensure(ctx context.Context, o *output) (*meta.Artifact, error) {
	key := types.NamespacedName{Namespace: r.g.Namespace, Name: o.name}
	there := &sourcev1.ExternalArtifact{}
	if err := client.IgnoreNotFound(r.client.Get(ctx, key, there)); err != nil {
		return nil, fmt.Errorf("read ExternalArtifact %s: %w", key, err)
	}
	want := r.object(o)
	if !r.current() || !holds(there.Labels, want.Labels) || !holds(there.Annotations, want.Annotations) ||
		!equality.Semantic.DeepEqual(there.Spec, want.Spec) {
		if err := r.apply(ctx, want, "spec"); err != nil {
			return nil, err
		}
	}
	status := r.published.status(ctx, sourceKey{sourcev1.ExternalArtifactKind, key}, o.Artifact, there.Status.Artifact, r.now)
	want.Status.Artifact = status
	want.Generation = max(there.Generation, 1)
	want.Status.Conditions = there.Status.Conditions
	report.Ready(want, meta.SucceededReason, "Artifact is ready")
	if equality.Semantic.DeepEqual(there.Status, want.Status) {
		return status, nil
	}
	return status, r.apply(ctx, want, "status")
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

func holds(all, some map[string]string) bool {
	for key, value := range some {
		if all[key] != value {
			return false
		}
	}
	return true
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
	ea.Spec.SourceRef = &meta.NamespacedObjectKindReference{
		APIVersion: swapi.GroupVersion.String(), Kind: swapi.ArtifactGeneratorKind, Name: r.g.Name, Namespace: r.g.Namespace,
	}
	return ea
}

// apply sends the metadata and spec, or the status, of an ExternalArtifact.
func (r *generatorRun) apply(ctx context.Context, ea *sourcev1.ExternalArtifact, part string) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(ea)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": sourcev1.GroupVersion.String(), "kind": sourcev1.ExternalArtifactKind,
		"metadata": map[string]any{"name": ea.Name, "namespace": ea.Namespace}, part: content[part],
	}}
	patch := client.ApplyConfigurationFromUnstructured(u)
	if part == "status" {
		err = r.client.Status().Apply(ctx, patch, client.ForceOwnership, client.FieldOwner(watcher))
	} else {
		u.SetLabels(ea.Labels)
		u.SetAnnotations(ea.Annotations)
		err = r.client.Apply(ctx, patch, client.ForceOwnership, client.FieldOwner(watcher))
	}
	if err != nil {
		return fmt.Errorf("write ExternalArtifact %s/%s: %w", ea.Namespace, ea.Name, err)
	}
	return nil
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
	ea := &sourcev1.ExternalArtifact{}
	err := r.client.Get(ctx, key, ea)
	if err == nil && key.Namespace == g.Namespace && ea.Labels[swapi.ArtifactGeneratorLabel] == string(g.UID) {
		only := client.Preconditions{UID: &ea.UID, ResourceVersion: &ea.ResourceVersion}
		err = r.client.Delete(ctx, ea, only)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete ExternalArtifact %s: %w", key, err)
	}
	if maker, ok := r.maker(key); ok && maker == client.ObjectKeyFromObject(g) {
		r.drop(ctx, key)
	}
	return nil
}
