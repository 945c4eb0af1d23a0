package observe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// watch is the watch of one kind. It is a cache.ReflectorStore that keeps
// records instead of objects.
type watch struct {
	ledger   *Ledger
	resource kube.Resource
	// metadataOnly: the kind has no status to judge.
	metadataOnly bool
	stop         context.CancelFunc

	synced chan struct{} // closed after the first full list
	once   sync.Once
	// broken is closed, after err was set, when the first list failed for
	// good; the watch then ends and the next Watch starts another.
	broken chan struct{}
	err    error
}

// Watch makes sure that the kind is watched and waits until the ledger knows
// what there is of it. It fails when the cluster does not serve the kind, or
// does not let us watch it.
func (l *Ledger) Watch(ctx context.Context, gvk schema.GroupVersionKind) error {
	err := l.watchOnce(ctx, gvk)
	for errors.Is(err, errReplaced) {
		err = l.watchOnce(ctx, gvk)
	}
	return err
}

// errReplaced: the watch was replaced by another of the same kind.
var errReplaced = errors.New("the watch was replaced")

func (l *Ledger) watchOnce(ctx context.Context, gvk schema.GroupVersionKind) error {
	l.mu.RLock()
	w := l.watches[gvk.GroupKind()]
	l.mu.RUnlock()
	if w == nil {
		resource, err := l.cluster.Resources.Of(ctx, gvk)
		if err != nil {
			return err
		}
		w = l.start(resource) //nolint:contextcheck // it outlives the call that starts it
	}
	select {
	case <-w.synced:
		return nil
	default:
	}
	select {
	case <-w.synced:
		return nil
	case <-w.broken:
		f := &failure.Error{Op: "watch", Kind: kindOf(w.err), Object: w.resource.GroupVersionResource.String(), Err: w.err}
		if f.Kind == failure.Denied {
			f.Remedy = "give that user the right to list and watch them in all namespaces"
		}
		return f
	case <-l.life.Done():
		return &failure.Error{Op: "watch", Kind: failure.Unavailable, Object: w.resource.GroupVersionResource.String(),
			Err: errors.New("the ledger of this cluster has ended")}
	case <-ctx.Done():
		return &failure.Error{Op: "watch", Kind: failure.Timeout, Object: w.resource.GroupVersionResource.String(), Err: ctx.Err()}
	}
}

func kindOf(err error) failure.Kind {
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return failure.Denied
	}
	return failure.Unavailable
}

func (l *Ledger) start(resource kube.Resource) *watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.startLocked(resource)
}

// startLocked is start with the lock held.
func (l *Ledger) startLocked(resource kube.Resource) *watch {
	if w, ok := l.watches[resource.GroupKind()]; ok {
		return w
	}
	ctx, stop := context.WithCancel(l.life)
	w := &watch{
		ledger: l, resource: resource, stop: stop,
		metadataOnly: !resource.HasStatus && kube.Builtin(resource.Group) && !l.judged(resource.GroupKind()),
		synced:       make(chan struct{}), broken: make(chan struct{}),
	}
	l.watches[resource.GroupKind()] = w
	reflector := cache.NewReflectorWithOptions(w.listWatch(), nil, w, reflectorOptions(resource))
	go reflector.RunWithContext(ctx)
	return w
}

// reflectorOptions are those of every watch. When the API server was away they
// come back within seconds: until then drift and health are not seen.
func reflectorOptions(r kube.Resource) cache.ReflectorOptions {
	return cache.ReflectorOptions{
		Name: "ledger", TypeDescription: r.GroupVersionResource.String(),
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 4 * time.Second, Factor: 2, Jitter: 0.5, Steps: math.MaxInt32},
	}
}

// fail ends the watch for good.
func (w *watch) fail(err error) {
	w.once.Do(func() {
		w.err = err
		w.ledger.mu.Lock()
		if w.ledger.watches[w.resource.GroupKind()] == w {
			delete(w.ledger.watches, w.resource.GroupKind())
		}
		w.ledger.mu.Unlock()
		close(w.broken)
		w.stop()
	})
}

// note looks at an answer to a list or watch. Before the first full list every
// failure ends the watch, so that those who wait learn of it; after it only
// that the kind is gone does, since the reflector tries all else again.
func (w *watch) note(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	select {
	case <-w.synced:
		if apierrors.IsNotFound(err) {
			w.kindGone()
			return
		}
		if errors.Is(err, kube.ErrShut) {
			return // whoever shut it tells why, once
		}
		w.ledger.log.Info("watch interrupted; trying again", "kind", w.resource.GroupKind().String(), "cause", err.Error())
		return
	default:
	}
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsResourceExpired(err) {
		return // the reflector falls back to another way of listing
	}
	if apierrors.IsNotFound(err) {
		w.ledger.cluster.Resources.Forget(w.resource.GroupKind())
	}
	w.fail(err)
}

// kindGone ends the watch of a kind that the cluster no longer serves, and drops
// all that was known of it.
func (w *watch) kindGone() {
	l, gk := w.ledger, w.resource.GroupKind()
	l.cluster.Resources.Forget(gk)
	l.mu.Lock()
	if l.watches[gk] != w {
		l.mu.Unlock()
		return
	}
	delete(l.watches, gk)
	var gone []Change
	for id, r := range l.records {
		if id.GroupKind() != gk {
			continue
		}
		if r.UID != "" {
			gone = append(gone, Change{Owner: r.Owner, ID: id, Drift: true, Health: true})
		}
		*r = Record{applying: r.applying, Version: r.Version}
		l.dropPhantom(id, r)
	}
	l.mu.Unlock()
	w.stop()
	for _, c := range gone {
		l.notify(c)
	}
}

func (w *watch) listWatch() cache.ListerWatcher {
	cluster, resource := w.ledger.cluster, w.resource.GroupVersionResource
	ours := metav1.ListOptions{LabelSelector: w.ledger.group + "/name"}
	if w.metadataOnly {
		return kube.ListWatch(cluster.Metadata.Resource(resource), ours, w.note)
	}
	return kube.ListWatch(cluster.Dynamic.Resource(resource), ours, w.note)
}

// Add implements cache.ReflectorStore.
func (w *watch) Add(obj any) error { return w.Update(obj) }

// Update implements cache.ReflectorStore.
func (w *watch) Update(obj any) error {
	id, seen, err := w.reduce(obj)
	if err != nil {
		return err
	}
	w.ledger.saw(id, seen)
	return nil
}

// Delete implements cache.ReflectorStore.
func (w *watch) Delete(obj any) error {
	id, seen, err := w.reduce(obj)
	if err != nil {
		return err
	}
	w.ledger.sawGone(id, seen.Version)
	return nil
}

// Replace implements cache.ReflectorStore.
func (w *watch) Replace(list []any, version string) error {
	at, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return fmt.Errorf("read resource version %q: %w", version, err)
	}
	there := make(map[object.ID]bool, len(list))
	for _, obj := range list {
		id, seen, err := w.reduce(obj)
		if err != nil {
			return err
		}
		there[id] = true
		w.ledger.saw(id, seen)
	}
	for _, id := range w.ledger.idsOf(w.resource.GroupKind()) {
		if !there[id] {
			w.ledger.sawGone(id, at)
		}
	}
	select {
	case <-w.synced:
	default:
		close(w.synced)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (w *watch) Resync() error { return nil }

func (w *watch) reduce(obj any) (object.ID, Record, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return object.ID{}, Record{}, fmt.Errorf("read watch event of %s: %w", w.resource.GroupVersionResource, err)
	}
	id := object.ID{Group: w.resource.Group, Kind: w.resource.Kind, Namespace: m.GetNamespace(), Name: m.GetName()}
	r := w.ledger.reduceMeta(id, m)
	if u, ok := obj.(*unstructured.Unstructured); ok {
		r.by = w.ledger.rulesOf(r.Owner)
		r.Verdict = r.by.Of(w.ledger.life, u)
	} else {
		r.Verdict = health.Verdict{Status: health.Current}
		if m.GetDeletionTimestamp() != nil {
			r.Verdict = health.Verdict{Status: health.Terminating, Message: "is being deleted"}
		}
	}
	return id, r, nil
}
