package controller

import (
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// written holds the units of a kind that were written and have not come back
// through the cache yet, so that a reconcile never decides on an inventory older
// than the one it wrote.
type written[T copied[T]] struct {
	mu     sync.Mutex
	latest map[types.NamespacedName]T // guarded by mu
}

// copied is an object of a kind that knows how to copy itself.
type copied[T any] interface {
	client.Object
	DeepCopy() T
}

func newWritten[T copied[T]]() *written[T] {
	return &written[T]{latest: map[types.NamespacedName]T{}}
}

func (w *written[T]) note(o T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest[client.ObjectKeyFromObject(o)] = o.DeepCopy()
}

// freshest returns the newer of the cached object and the one last written.
func (w *written[T]) freshest(cached T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := client.ObjectKeyFromObject(cached)
	mine, ok := w.latest[name]
	if !ok {
		return cached
	}
	if mine.GetUID() != cached.GetUID() || versionOf(cached) >= versionOf(mine) {
		delete(w.latest, name)
		return cached
	}
	return mine.DeepCopy()
}

// seen drops what the cache has caught up with.
func (w *written[T]) seen(cached T) { w.freshest(cached) }

func (w *written[T]) forget(name types.NamespacedName) {
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
