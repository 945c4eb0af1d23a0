package controller

import (
	"context"
	"slices"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// A unit that was let go is not deleted once more because the cache still has it.
func TestLetGoOnce(t *testing.T) {
	t.Parallel()
	const finalizer = "example.org/hold" // the engine that runs beside has nothing to do with it
	s := newStage(t)
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.Suspend = true
		controllerutil.AddFinalizer(h, finalizer)
	})
	if err := s.client.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	s.awaitRelease("web", "let go by that engine", func(h *helmv2.HelmRelease) bool { return slices.Equal(h.Finalizers, []string{finalizer}) })
	behind := s.helmRelease("web")
	u := &units[*helmv2.HelmRelease]{client: s.client, written: newWritten[*helmv2.HelmRelease]()}
	forgotten := false
	err := u.letGo(t.Context(), behind.DeepCopy(), finalizer, func(_ context.Context, unit types.NamespacedName) {
		forgotten = true
		u.written.forget(unit)
	})
	if err != nil || !forgotten {
		t.Fatalf("forgotten %v, %v", forgotten, err)
	}
	if got := u.written.freshest(behind); controllerutil.ContainsFinalizer(got, finalizer) {
		t.Error("it would be deleted again")
	}
	s.awaitGone(h, &helmv2.HelmReleaseList{})
}

// What was made anew under the name of a unit that goes is another unit: it is neither let go, nor is what
// is known of it what it was then.
func TestLetGoOfAnother(t *testing.T) {
	t.Parallel()
	const finalizer = "example.org/hold"
	s := newStage(t)
	s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.Suspend = true
		controllerutil.AddFinalizer(h, finalizer)
	})
	h := s.awaitRelease("web", "held by the engine beside", func(h *helmv2.HelmRelease) bool { return len(h.Finalizers) == 2 })
	gone := h.DeepCopy()
	gone.UID, gone.DeletionTimestamp = "the-one-before", ptr.To(metav1.Now())
	u := &units[*helmv2.HelmRelease]{client: s.client, written: newWritten[*helmv2.HelmRelease]()}
	if err := u.letGo(t.Context(), gone, finalizer, func(context.Context, types.NamespacedName) {}); err == nil {
		t.Error("it was let go, though it is not there any more")
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.ReleaseName = "other" })
	h = s.helmRelease("web")
	if !controllerutil.ContainsFinalizer(h, finalizer) {
		t.Error("the new one lost its finalizer")
	}
	if got := u.written.freshest(h); got.Spec.ReleaseName != "other" {
		t.Error("the new one is seen as it was")
	}
	edit(s, h, func(h *helmv2.HelmRelease) { controllerutil.RemoveFinalizer(h, finalizer) })
}
