package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// shelf is the watch of one kind of referenced objects, as metadata, which keeps
// nothing: it tells references what changed. It implements cache.ReflectorStore.
// Its fields are guarded by references.mu.
type shelf struct {
	*references
	kind string
	// listed says that all there is was heard of, and open that changes since then
	// are being heard of.
	listed, open bool
	// denied says why the engine may not watch; nil when it may.
	denied error
}

func newShelf(r *references, kind string) *shelf { return &shelf{references: r, kind: kind} }

// live reports whether everything that changed is known of. The caller holds mu.
func (s *shelf) live() bool { return s.listed && s.open }

// run watches until ctx is done.
func (s *shelf) run(ctx context.Context) {
	objects := s.metadata.Resource(corev1.SchemeGroupVersion.WithResource(strings.ToLower(s.kind) + "s"))
	listWatch := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			s.set(func() { s.listed = false })
			list, err := objects.List(ctx, o)
			s.heard(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if o.SendInitialEvents != nil && *o.SendInitialEvents {
				s.set(func() { s.listed = false })
			}
			w, err := objects.Watch(ctx, o)
			s.heard(err)
			if err != nil {
				return nil, err
			}
			s.set(func() { s.open = true })
			return &openWatch{Interface: w, stopped: func() { s.set(func() { s.open = false }) }}, nil
		},
	}
	cache.NewReflectorWithOptions(listWatch, nil, s, cache.ReflectorOptions{
		Name: "references", TypeDescription: s.kind,
	}).RunWithContext(ctx)
}

func (s *shelf) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// openWatch tells when it is stopped.
type openWatch struct {
	watch.Interface
	stopped func()
}

// Stop implements watch.Interface.
func (w *openWatch) Stop() {
	w.stopped()
	w.Interface.Stop()
}

// heard takes how the API server answered to a list or watch. When it begins or
// ceases to refuse, all readers have something else to say than before.
func (s *shelf) heard(err error) {
	refused := apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
	if err != nil && !refused {
		return
	}
	s.mu.Lock()
	was := s.denied != nil
	s.denied = nil
	if refused {
		s.denied = &failure.Error{Op: "watch", Kind: failure.Denied, Object: s.kind + "s of all namespaces", Err: err,
			Remedy: fmt.Sprintf("give the engine's service account the rights to get, list and watch %ss", strings.ToLower(s.kind))}
	}
	var woken []user
	if was != refused {
		for ref, e := range s.entries {
			if ref.Kind == s.kind {
				e.drop()
				woken = append(woken, slices.Collect(maps.Keys(e.users))...)
			}
		}
	}
	s.mu.Unlock()
	s.wakeAll(woken)
}

// Add implements cache.ReflectorStore.
func (s *shelf) Add(object any) error { return s.Update(object) }

// Update implements cache.ReflectorStore.
func (s *shelf) Update(object any) error {
	if o, ok := object.(*metav1.PartialObjectMetadata); ok {
		s.changed(o, o.ResourceVersion)
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *shelf) Delete(object any) error {
	if o, ok := object.(*metav1.PartialObjectMetadata); ok {
		s.changed(o, absent)
	}
	return nil
}

// changed takes an event: the object is at a version now, or absent.
func (s *shelf) changed(o *metav1.PartialObjectMetadata, version string) {
	s.mu.Lock()
	woken := s.moved(s.entries[s.reference(o)], version, o.ResourceVersion)
	s.mu.Unlock()
	s.wakeAll(woken)
}

func (s *shelf) reference(o *metav1.PartialObjectMetadata) reference {
	return reference{s.kind, types.NamespacedName{Namespace: o.Namespace, Name: o.Name}}
}

// moved notes that an entry had a version when the cluster was at revision, and
// returns the users that have read another. A value that is newer than the
// revision stays: the watch is behind. The caller holds mu.
func (s *shelf) moved(e *entry, version, revision string) (woken []user) {
	if e == nil || e.value != nil && e.value.version != absent && newer(e.value.version, revision) {
		return nil
	}
	e.changes++
	e.heard = version
	if e.value != nil && e.value.version != version {
		e.value = nil
	}
	for u, read := range e.users {
		if read != version && !(read == unread && e.asking) { // who is asking will see
			woken = append(woken, u)
		}
	}
	return woken
}

// newer compares resource versions, which are increasing numbers.
func newer(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

// Replace implements cache.ReflectorStore: anything may have changed while nobody
// watched.
func (s *shelf) Replace(list []any, revision string) error {
	s.mu.Lock()
	versions := map[reference]string{}
	for _, object := range list {
		if o, ok := object.(*metav1.PartialObjectMetadata); ok && s.entries[s.reference(o)] != nil {
			versions[s.reference(o)] = o.ResourceVersion
		}
	}
	var woken []user
	for ref, e := range s.entries {
		if ref.Kind == s.kind {
			woken = append(woken, s.moved(e, versions[ref], revision)...)
		}
	}
	s.listed = true
	s.mu.Unlock()
	s.wakeAll(woken)
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *shelf) Resync() error { return nil }

// Transformer implements cache.TransformingStore: of the many objects that a list
// brings, only names and versions are held, and not for long.
func (s *shelf) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		o, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return object, nil
		}
		return &metav1.PartialObjectMetadata{TypeMeta: o.TypeMeta,
			ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, ResourceVersion: o.ResourceVersion}}, nil
	}
}

// referenceReader reads for one user.
type referenceReader struct {
	references *references
	user       user
}

// Get implements client.Reader for ConfigMaps and Secrets.
func (r referenceReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	meta := metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace}
	switch o := object.(type) {
	case *corev1.ConfigMap:
		v, err := r.get(ctx, reference{kindConfigMap, key})
		if err != nil {
			return err
		}
		meta.ResourceVersion = v.version
		*o = corev1.ConfigMap{ObjectMeta: meta, Data: make(map[string]string, len(v.data))}
		for name, text := range v.data {
			o.Data[name] = string(text)
		}
		return nil
	case *corev1.Secret:
		v, err := r.get(ctx, reference{kindSecret, key})
		if err != nil {
			return err
		}
		meta.ResourceVersion = v.version
		*o = corev1.Secret{ObjectMeta: meta, Data: maps.Clone(v.data)}
		return nil
	default:
		return fmt.Errorf("read %s: only ConfigMaps and Secrets are read by reference, not %T", key, object)
	}
}

func (r referenceReader) get(ctx context.Context, ref reference) (value, error) {
	v, err := r.references.get(ctx, r.user, ref)
	if err == nil && v.version == absent {
		resource := corev1.Resource(strings.ToLower(ref.Kind) + "s")
		return v, apierrors.NewNotFound(resource, ref.Name)
	}
	return v, err
}

// List implements client.Reader by refusing: a reference names one object.
func (r referenceReader) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return fmt.Errorf("read for %s %s: references cannot be listed", r.user.Kind, r.user.NamespacedName)
}
