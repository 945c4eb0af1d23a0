package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// handouts are the artifacts that are made in this process out of an object on the
// cluster, and handed to those who use them without a way over HTTP. The
// ExternalArtifacts that stand for them are for everybody else, and say whose they are.
type handouts struct {
	client    client.Client
	artifacts *artifacts
	published *published
	// changed is told of every artifact that changed.
	changed func(context.Context, sourceKey)
	// kinds are the kinds of objects that artifacts are made of. It is not changed once
	// the engine runs.
	kinds map[string]makerKind

	mu sync.Mutex
	// makers holds the maker of each artifact that is handed out.
	makers map[types.NamespacedName]maker // guarded by mu
}

// maker names an object that artifacts of its own namespace are made of.
type maker struct {
	Kind string
	types.NamespacedName
}

// String returns "Kind namespace/name".
func (m maker) String() string { return m.Kind + " " + m.NamespacedName.String() }

// makerKind is a kind of makers.
type makerKind struct {
	apiVersion string
	self       *feed.Feed
	// exists reports whether there is such an object which is not on its way out.
	exists func(context.Context, types.NamespacedName) bool
}

func artifactKey(name types.NamespacedName) sourceKey {
	return sourceKey{Kind: sourcev1.ExternalArtifactKind, NamespacedName: name}
}

// of returns the maker of an artifact that is handed out.
func (h *handouts) of(artifact types.NamespacedName) (maker, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.makers[artifact]
	return m, ok
}

// named returns the maker that an ExternalArtifact says it is from.
func (h *handouts) named(ea *sourcev1.ExternalArtifact) (maker, bool) {
	ref := ea.Spec.SourceRef
	if ref == nil {
		return maker{}, false
	}
	kind, ok := h.kinds[ref.Kind]
	if !ok || ref.APIVersion != "" && ref.APIVersion != kind.apiVersion || ref.Namespace != "" && ref.Namespace != ea.Namespace {
		return maker{}, false
	}
	return maker{ref.Kind, types.NamespacedName{Namespace: ea.Namespace, Name: ref.Name}}, true
}

// refer is what the ExternalArtifacts of a maker say.
func (h *handouts) refer(m maker) *meta.NamespacedObjectKindReference {
	return &meta.NamespacedObjectKindReference{APIVersion: h.kinds[m.Kind].apiVersion, Kind: m.Kind, Name: m.Name, Namespace: m.Namespace}
}

func (h *handouts) wake(m maker) { h.kinds[m.Kind].self.AddAt(m.NamespacedName, soon) }

func (h *handouts) exists(ctx context.Context, m maker) bool {
	return h.kinds[m.Kind].exists(ctx, m.NamespacedName)
}

// madeBy returns the artifacts that are handed out and from a maker.
func (h *handouts) madeBy(m maker) []types.NamespacedName {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []types.NamespacedName
	for artifact, by := range h.makers {
		if by == m {
			out = append(out, artifact)
		}
	}
	return out
}

// hand gives an artifact to those who use it.
func (h *handouts) hand(ctx context.Context, m maker, name types.NamespacedName, a source.Artifact) {
	h.mu.Lock()
	h.makers[name] = m
	h.mu.Unlock()
	if key := artifactKey(name); h.artifacts.put(key, a) {
		h.changed(ctx, key)
	}
}

// drop takes an artifact away from those who use it.
func (h *handouts) drop(ctx context.Context, name types.NamespacedName) {
	h.mu.Lock()
	delete(h.makers, name)
	h.mu.Unlock()
	key := artifactKey(name)
	h.artifacts.drop(key)
	h.published.withdraw(key)
	h.changed(ctx, key)
}

// asMade reports whether an object still says what was written for an artifact that is handed out.
func (h *handouts) asMade(m maker, ea *sourcev1.ExternalArtifact) bool {
	made, ok := h.artifacts.get(artifactKey(client.ObjectKeyFromObject(ea)))
	if !ok {
		return true
	}
	by, named := h.named(ea)
	return named && by == m && ea.Status.Artifact != nil && ea.Status.Artifact.Revision == made.Revision
}

// mine says why an artifact of this name is not the maker's to make. owns judges the one
// that is there.
func (h *handouts) mine(ctx context.Context, m maker, name types.NamespacedName, owns func(*sourcev1.ExternalArtifact) bool) error {
	ea := &sourcev1.ExternalArtifact{}
	err := h.client.Get(ctx, name, ea)
	switch {
	case apierrors.IsNotFound(err):
		if by, ok := h.of(name); ok && by != m {
			return taken(sourcev1.ExternalArtifactKind, name, by.String())
		}
		return nil
	case err != nil:
		return fmt.Errorf("read ExternalArtifact %s: %w", name, err)
	case owns(ea):
		return nil
	case ea.Spec.SourceRef == nil:
		return taken(sourcev1.ExternalArtifactKind, name, "somebody else")
	default:
		return taken(sourcev1.ExternalArtifactKind, name, ea.Spec.SourceRef.Kind+" "+ea.Spec.SourceRef.Name)
	}
}

func taken(kind string, name types.NamespacedName, by string) error {
	return &failure.Error{Op: "make", Object: kind + " " + name.String(), Kind: failure.Conflict,
		Err: fmt.Errorf("it is there and belongs to %s", by), Remedy: "give the one that is to be made another name, or delete the one that is there"}
}

// ensure writes an ExternalArtifact, given without its status, as far as it is not yet what it
// should be; anew has it written all the same. It returns what its status is to say as
// soon as the object is there, even with an error.
func (h *handouts) ensure(ctx context.Context, want *sourcev1.ExternalArtifact, a source.Artifact, manager client.FieldOwner, anew bool, now time.Time) (*meta.Artifact, error) {
	key := client.ObjectKeyFromObject(want)
	there := &sourcev1.ExternalArtifact{}
	if err := client.IgnoreNotFound(h.client.Get(ctx, key, there)); err != nil {
		return nil, fmt.Errorf("read ExternalArtifact %s: %w", key, err)
	}
	if anew || !holds(there.Labels, want.Labels) || !holds(there.Annotations, want.Annotations) ||
		!equality.Semantic.DeepEqual(there.Spec, want.Spec) || len(there.OwnerReferences) < len(want.OwnerReferences) {
		if err := h.apply(ctx, want, "spec", manager); err != nil {
			return nil, err
		}
	}
	status := h.published.status(ctx, artifactKey(key), a, there.Status.Artifact, now)
	want.Status.Artifact = status
	want.Generation = max(there.Generation, 1)
	want.Status.Conditions = there.Status.Conditions
	report.Ready(want, meta.SucceededReason, "Artifact is ready")
	if equality.Semantic.DeepEqual(there.Status, want.Status) {
		return status, nil
	}
	return status, h.apply(ctx, want, "status", manager)
}

func holds(all, some map[string]string) bool {
	for key, value := range some {
		if all[key] != value {
			return false
		}
	}
	return true
}

// apply sends the metadata and spec, or the status, of an ExternalArtifact.
func (h *handouts) apply(ctx context.Context, ea *sourcev1.ExternalArtifact, part string, manager client.FieldOwner) error {
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
		err = h.client.Status().Apply(ctx, patch, client.ForceOwnership, manager)
	} else {
		u.SetLabels(ea.Labels)
		u.SetAnnotations(ea.Annotations)
		u.SetOwnerReferences(ea.OwnerReferences)
		err = h.client.Apply(ctx, patch, client.ForceOwnership, manager)
	}
	if err != nil {
		return fmt.Errorf("write ExternalArtifact %s/%s: %w", ea.Namespace, ea.Name, err)
	}
	return nil
}

// remove deletes an ExternalArtifact, if owns says that it is the maker's, and takes the
// artifact back.
func (h *handouts) remove(ctx context.Context, m maker, name types.NamespacedName, owns func(*sourcev1.ExternalArtifact) bool) error {
	ea := &sourcev1.ExternalArtifact{}
	err := h.client.Get(ctx, name, ea)
	if err == nil && name.Namespace == m.Namespace && owns(ea) {
		only := client.Preconditions{UID: &ea.UID, ResourceVersion: &ea.ResourceVersion}
		err = h.client.Delete(ctx, ea, only)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete ExternalArtifact %s: %w", name, err)
	}
	if by, ok := h.of(name); ok && by == m {
		h.drop(ctx, name)
	}
	return nil
}
