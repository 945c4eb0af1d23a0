package controller

import (
	"context"
	"fmt"
	"sync"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
)

// artifacts holds the newest artifact of every source. It hands them from the
// reconcilers of sources to those of units without a way over the API server.
type artifacts struct {
	mu     sync.RWMutex
	latest map[sourceKey]source.Artifact // guarded by mu
	// failed says why a source that nobody here reports on has no artifact.
	failed map[sourceKey]string // guarded by mu
	// unserved holds the kinds of sources that the cluster did not know when the
	// engine started. It is not changed after that.
	unserved map[string]bool
}

// sourceKey names a source object of any kind.
type sourceKey struct {
	Kind string
	types.NamespacedName
}

func newArtifacts() *artifacts {
	return &artifacts{latest: map[sourceKey]source.Artifact{}, failed: map[sourceKey]string{}, unserved: map[string]bool{}}
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
	delete(a.failed, key)
	return !ok || old.Revision != art.Revision || old.Digest != art.Digest
}

func (a *artifacts) drop(key sourceKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.latest, key)
	delete(a.failed, key)
}

// digests returns those of the artifacts of a kind.
func (a *artifacts) digests(kind string) map[string]bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := map[string]bool{}
	for key, artifact := range a.latest {
		if key.Kind == kind {
			all[artifact.Digest] = true
		}
	}
	return all
}

// fail notes why a source has no artifact, and reports whether that is news.
func (a *artifacts) fail(key sourceKey, why string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.failed[key]
	a.failed[key] = why
	return old != why
}

func (a *artifacts) failure(key sourceKey) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.failed[key]
}

// missing says why a source has no artifact, and whether that is nothing out of the
// ordinary. The field is the one that names it.
func (a *artifacts) missing(ctx context.Context, c client.Reader, key sourceKey, field string) (why string, passing bool) {
	if a.unserved[key.Kind] {
		return fmt.Sprintf("the cluster did not know the kind %s when the engine started; install the definitions (bowline crds | kubectl apply --server-side -f -) and restart the engine", key.Kind), false
	}
	o := sourceObject(key.Kind)
	err := c.Get(ctx, key.NamespacedName, o)
	if apierrors.IsNotFound(err) {
		return fmt.Sprintf("%s '%s' not found; create it, or correct %s", key.Kind, key.NamespacedName, field), false
	}
	if err != nil {
		return fmt.Sprintf("read %s: %v", key, err), true
	}
	if fieldsOf(o).suspended { // passing: at a start, its last revision is about to be recalled
		return fmt.Sprintf("%s '%s' is suspended and has no artifact; resume it", key.Kind, key.NamespacedName), true
	}
	if why := a.failure(key); why != "" {
		return fmt.Sprintf("%s '%s': %s", key.Kind, key.NamespacedName, why), false
	}
	r := report.Condition(o, meta.ReadyCondition)
	if r == nil || r.Status == metav1.ConditionTrue {
		return fmt.Sprintf("%s '%s' has no artifact yet", key.Kind, key.NamespacedName), true
	}
	return fmt.Sprintf("%s '%s' is not ready: %s", key.Kind, key.NamespacedName, r.Message), false
}

// sourceObject returns an empty source of a kind.
func sourceObject(kind string) interface {
	client.Object
	report.Conditioned
} {
	switch kind {
	case sourcev1.BucketKind:
		return &sourcev1.Bucket{}
	case sourcev1.OCIRepositoryKind:
		return &sourcev1.OCIRepository{}
	case sourcev1.HelmRepositoryKind:
		return &sourcev1.HelmRepository{}
	case sourcev1.HelmChartKind:
		return &sourcev1.HelmChart{}
	case sourcev1.ExternalArtifactKind:
		return &sourcev1.ExternalArtifact{}
	default:
		return &sourcev1.GitRepository{}
	}
}

// wakeIndexed enqueues the objects of a kind that use a source, as an index of theirs says.
func wakeIndexed(ctx context.Context, c client.Reader, list client.ObjectList, index string, key sourceKey, self *feed.Feed) {
	if err := c.List(ctx, list, client.MatchingFields{index: key.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	_ = apimeta.EachListItem(list, func(item runtime.Object) error {
		if o, ok := item.(client.Object); ok {
			self.AddAt(client.ObjectKeyFromObject(o), soon)
		}
		return nil
	})
}

// secretReader reads the Secret that a field of a source names, if it names one, and has its data taken.
type secretReader func(ref *meta.LocalObjectReference, field string, take func(data map[string][]byte) error) error

// secretsIn reads Secrets of a namespace.
func secretsIn(ctx context.Context, secrets client.Reader, namespace string) secretReader {
	return func(ref *meta.LocalObjectReference, field string, take func(map[string][]byte) error) error {
		if ref == nil {
			return nil
		}
		data, err := readSecret(ctx, secrets, namespace, ref.Name, field)
		if err != nil {
			return err
		}
		if err := take(data); err != nil {
			return fmt.Errorf("read Secret %s/%s: %w", namespace, ref.Name, err)
		}
		return nil
	}
}

func readSecret(ctx context.Context, secrets client.Reader, namespace, name, field string) (map[string][]byte, error) {
	data, _, err := readData(ctx, secrets, reference{kindSecret, client.ObjectKey{Namespace: namespace, Name: name}}, field)
	return data, err
}
