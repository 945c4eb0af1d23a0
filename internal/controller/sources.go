package controller

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/source"
)

// artifacts holds the newest artifact of every source. It hands them from the
// reconcilers of sources to those of units without a way over the API server.
type artifacts struct {
	mu     sync.RWMutex
	latest map[sourceKey]source.Artifact // guarded by mu
}

// sourceKey names a source object of any kind.
type sourceKey struct {
	Kind string
	types.NamespacedName
}

func newArtifacts() *artifacts {
	return &artifacts{latest: map[sourceKey]source.Artifact{}}
}

func (a *artifacts) get(key sourceKey) (source.Artifact, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	art, ok := a.latest[key]
	return art, ok
}

// put stores the artifact and reports whether it is another one than before.
func (a *artifacts) put(key sourceKey, art source.Artifact) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, ok := a.latest[key]
	a.latest[key] = art
	return !ok || old.Revision != art.Revision || old.Digest != art.Digest
}

func (a *artifacts) drop(key sourceKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.latest, key)
}
