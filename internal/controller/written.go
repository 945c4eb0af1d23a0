package controller

import (
	"strconv"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// written holds the Kustomizations that were written and have not come back
// through the cache yet, so that a reconcile never decides on an inventory older
// than the one it wrote.
type written struct {
	mu     sync.Mutex
	latest map[types.NamespacedName]*kustomizev1.Kustomization // guarded by mu
}

func newWritten() *written {
	return &written{latest: map[types.NamespacedName]*kustomizev1.Kustomization{}}
}

func (w *written) note(k *kustomizev1.Kustomization) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest[client.ObjectKeyFromObject(k)] = k.DeepCopy()
}

// freshest returns the newer of the cached object and the one last written.
func (w *written) freshest(cached *kustomizev1.Kustomization) *kustomizev1.Kustomization {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := client.ObjectKeyFromObject(cached)
	mine, ok := w.latest[name]
	if !ok {
		return cached
	}
	if mine.UID != cached.UID || versionOf(cached) >= versionOf(mine) {
		delete(w.latest, name)
		return cached
	}
	return mine.DeepCopy()
}

// seen drops what the cache has caught up with.
func (w *written) seen(cached *kustomizev1.Kustomization) { w.freshest(cached) }

func (w *written) forget(name types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.latest, name)
}

// versionOf reads a resource version, which the API server guarantees to be an
// increasing number.
func versionOf(o client.Object) uint64 {
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
