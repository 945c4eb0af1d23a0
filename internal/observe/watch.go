package observe

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
	"github.com/bowline-dev/bowline/internal/plan"
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
	failed bool // guarded by Ledger.mu
}

// Watch makes sure that the kind is watched and waits until the ledger knows
// what there is of it. It fails when the cluster does not serve the kind, or
// does not let us watch it.
func (l *Ledger) Watch(ctx context.Context, gvk schema.GroupVersionKind) error {
	l.mu.RLock()
	w := l.watches[gvk.GroupKind()]
	l.mu.RUnlock()
	if w == nil {
		resource, err := l.cluster.Resources.Of(ctx, gvk)
		if err != nil {
			return err
		}
		w = l.start(resource)
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
		return &failure.Error{Op: "watch", Kind: kindOf(w.err), Object: w.resource.GroupVersionResource.String(), Err: w.err}
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
	if w, ok := l.watches[resource.GroupKind()]; ok {
		return w
	}
	ctx, stop := context.WithCancel(l.life)
	w := &watch{
		ledger: l, resource: resource, stop: stop,
		metadataOnly: !resource.HasStatus && kube.Builtin(resource.Group),
		synced:       make(chan struct{}), broken: make(chan struct{}),
	}
	l.watches[resource.GroupKind()] = w
	reflector := cache.NewReflectorWithOptions(w.listWatch(), nil, w, cache.ReflectorOptions{
		Name: "ledger", TypeDescription: resource.GroupVersionResource.String(),
	})
	go reflector.RunWithContext(ctx)
	return w
}

// fail ends the watch for good.
func (w *watch) fail(err error) {
	w.once.Do(func() {
		w.err = err
		w.ledger.mu.Lock()
		w.failed = true
		delete(w.ledger.watches, w.resource.GroupKind())
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
		if !apierrors.IsNotFound(err) {
			return
		}
		w.ledger.forgetKind(w.resource.GroupKind())
		w.stop()
		return
	default:
	}
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsResourceExpired(err) {
		return // the reflector falls back to another way of listing
	}
	w.fail(err)
}

// forgetKind drops a kind that the cluster no longer serves, and all that was
// known of it.
func (l *Ledger) forgetKind(gk schema.GroupKind) {
	l.mu.Lock()
	var gone []Change
	delete(l.watches, gk)
	for id, r := range l.records {
		if id.GroupKind() == gk {
			gone = append(gone, Change{Owner: r.Owner, ID: id, Drift: true, Health: true})
			delete(l.records, id)
		}
	}
	l.mu.Unlock()
	l.cluster.Resources.Invalidate()
	for _, c := range gone {
		l.notify(c)
	}
}

func (w *watch) listWatch() cache.ListerWatcher {
	list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.LabelSelector = labelOwnerName
		var out runtime.Object
		var err error
		if w.metadataOnly {
			out, err = w.ledger.cluster.Metadata.Resource(w.resource.GroupVersionResource).List(ctx, o)
		} else {
			out, err = w.ledger.cluster.Dynamic.Resource(w.resource.GroupVersionResource).List(ctx, o)
		}
		w.note(err)
		return out, err
	}
	watch := func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
		o.LabelSelector = labelOwnerName
		var out apiwatch.Interface
		var err error
		if w.metadataOnly {
			out, err = w.ledger.cluster.Metadata.Resource(w.resource.GroupVersionResource).Watch(ctx, o)
		} else {
			out, err = w.ledger.cluster.Dynamic.Resource(w.resource.GroupVersionResource).Watch(ctx, o)
		}
		w.note(err)
		return out, err
	}
	return &cache.ListWatch{ListWithContextFunc: list, WatchFuncWithContext: watch}
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
	r := w.ledger.reduceMeta(m)
	if u, ok := obj.(*unstructured.Unstructured); ok {
		r.Verdict = health.Of(u)
	} else {
		r.Verdict = health.Verdict{Status: health.Current}
		if m.GetDeletionTimestamp() != nil {
			r.Verdict = health.Verdict{Status: health.Terminating, Message: "is being deleted"}
		}
	}
	return id, r, nil
}

// reduceMeta keeps of an object's metadata what a record holds. Strings are
// copied out of the decoded message, which would otherwise stay alive whole.
func (l *Ledger) reduceMeta(m metav1.Object) Record {
	labels, annotations := m.GetLabels(), m.GetAnnotations()
	fields := ownEntry(m.GetManagedFields(), l.manager)
	version, _ := strconv.ParseUint(m.GetResourceVersion(), 10, 64)
	r := Record{
		UID: types.UID(strings.Clone(string(m.GetUID()))), Version: version,
		Digest: strings.Clone(annotations[object.AppliedDigestAnnotation]),
		Owner: types.NamespacedName{
			Namespace: strings.Clone(labels[labelOwnerNamespace]), Name: strings.Clone(labels[labelOwnerName]),
		},
		own: ownershipOf(l.seed, fields), fields: fields,
		Contender: strings.Clone(contender(m.GetManagedFields(), l.manager)),
	}
	if strings.EqualFold(annotations[annotationPrune], disabled) || strings.EqualFold(labels[annotationPrune], disabled) {
		r.Marks |= plan.KeepOnPrune
	}
	if strings.EqualFold(annotations[annotationReconcile], disabled) || strings.EqualFold(labels[annotationReconcile], disabled) {
		r.Marks |= plan.HandsOff
	}
	return r
}

// contender returns the last other field manager that wrote to the main resource.
func contender(entries []metav1.ManagedFieldsEntry, manager string) string {
	var name string
	var last metav1.Time
	for i := range entries {
		e := &entries[i]
		if e.Manager == manager || e.Subresource != "" || e.Time == nil || e.Time.Before(&last) {
			continue
		}
		name, last = e.Manager, *e.Time
	}
	return name
}

func (l *Ledger) idsOf(gk schema.GroupKind) []object.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var ids []object.ID
	for id := range l.records {
		if id.GroupKind() == gk {
			ids = append(ids, id)
		}
	}
	return ids
}

// saw takes a watch event into the ledger.
func (l *Ledger) saw(id object.ID, seen Record) {
	l.mu.Lock()
	old, known := l.records[id]
	if known && seen.Version < old.Version {
		l.mu.Unlock()
		return // older than the answer to our own apply
	}
	change := Change{Owner: seen.Owner, ID: id, Health: !known || old.Verdict != seen.Verdict}
	if known {
		seen.applying = old.applying
		if old.UID == seen.UID {
			seen.base, seen.blank = old.base, old.blank
		}
		if seen.base != 0 && seen.own != seen.base && seen.applying == 0 {
			change.Drift = true
		}
		if seen.Marks != old.Marks {
			change.Drift = true
		}
		*old = seen
	} else {
		old = &seen
		l.records[id] = old
	}
	if old.base != 0 {
		old.fields = nil
	} else {
		old.fields = append([]byte(nil), old.fields...)
	}
	l.mu.Unlock()
	if change.Drift || change.Health {
		l.notify(change)
	}
}

// sawGone takes the disappearance of an object into the ledger, unless it was
// made anew since.
func (l *Ledger) sawGone(id object.ID, version uint64) {
	l.mu.Lock()
	r, known := l.records[id]
	if !known || r.Version > version || (r.UID == "" && r.applying > 0) {
		l.mu.Unlock()
		return
	}
	owner := r.Owner
	if r.applying > 0 {
		*r = Record{applying: r.applying}
	} else {
		delete(l.records, id)
	}
	l.mu.Unlock()
	l.notify(Change{Owner: owner, ID: id, Drift: true, Health: true})
}

// The toolkit's labels and annotations that the ledger reads.
const (
	labelOwnerName      = object.KustomizeGroup + "/name"
	labelOwnerNamespace = object.KustomizeGroup + "/namespace"
	annotationPrune     = object.KustomizeGroup + "/prune"
	annotationReconcile = object.KustomizeGroup + "/reconcile"
	disabled            = "disabled"
)
