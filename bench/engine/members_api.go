package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// memberAPI is the API server of a simulated member, and the engine on it: objects in memory, of which watchers are told,
// and units that are ready as soon as they are assigned. Only what a link asks for is there.
type memberAPI struct {
	kubeclient.Client // nil: what is not below is asked by nobody
	uid               types.UID

	mu sync.Mutex
	// All below is guarded by mu.
	version  int64
	objects  map[reflect.Type]map[types.NamespacedName]kubeclient.Object
	watchers map[reflect.Type][]toolscache.ResourceEventHandler
}

var _ cache.Cache = (*memberAPI)(nil)

func newMemberAPI(uid string) *memberAPI {
	return &memberAPI{uid: types.UID(uid), objects: map[reflect.Type]map[types.NamespacedName]kubeclient.Object{}, watchers: map[reflect.Type][]toolscache.ResourceEventHandler{}}
}

// Get implements client.Reader. What it returns shares what it points to with the store, where nothing is ever changed.
func (m *memberAPI) Get(_ context.Context, key kubeclient.ObjectKey, into kubeclient.Object, _ ...kubeclient.GetOption) error {
	if n, ok := into.(*metav1.PartialObjectMetadata); ok { // of the namespace by which a cluster is known
		n.Name, n.UID = key.Name, m.uid
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[reflect.TypeOf(into)][key]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: fmt.Sprintf("%T", into)}, key.Name)
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(o).Elem())
	return nil
}

// List implements client.Reader.
func (m *memberAPI) List(_ context.Context, into kubeclient.ObjectList, _ ...kubeclient.ListOption) error {
	items := reflect.ValueOf(into).Elem().FieldByName("Items")
	kind := reflect.PointerTo(items.Type().Elem())
	m.mu.Lock()
	defer m.mu.Unlock()
	all := reflect.MakeSlice(items.Type(), 0, len(m.objects[kind]))
	for _, o := range m.objects[kind] {
		all = reflect.Append(all, reflect.ValueOf(o).Elem())
	}
	items.Set(all)
	return nil
}

// Create implements client.Writer.
func (m *memberAPI) Create(_ context.Context, o kubeclient.Object, _ ...kubeclient.CreateOption) error {
	m.write(o)
	return nil
}

// Update implements client.Writer.
func (m *memberAPI) Update(_ context.Context, o kubeclient.Object, _ ...kubeclient.UpdateOption) error {
	m.write(o)
	return nil
}

func (m *memberAPI) write(o kubeclient.Object) {
	if a, ok := o.(*fleetv1.ClusterAssignment); ok {
		m.carryOut(a)
	}
	m.put(o)
}

// put stores an object in its next generation and tells it to the watchers.
func (m *memberAPI) put(o kubeclient.Object) {
	kind, key := reflect.TypeOf(o), kubeclient.ObjectKeyFromObject(o)
	m.mu.Lock()
	before := m.objects[kind][key]
	if m.objects[kind] == nil {
		m.objects[kind] = map[types.NamespacedName]kubeclient.Object{}
	}
	m.version++
	o.SetResourceVersion(strconv.FormatInt(m.version, 10))
	o.SetUID(types.UID(key.String()))
	m.objects[kind][key] = o
	watchers := m.watchers[kind]
	m.mu.Unlock()
	for _, w := range watchers {
		if before == nil {
			w.OnAdd(o, false)
		} else {
			w.OnUpdate(before, o)
		}
	}
}

// carryOut does what an engine would do with the member's copy in the end: sources are at their pinned revisions, and units as
// they are assigned, delivered and ready.
func (m *memberAPI) carryOut(a *fleetv1.ClusterAssignment) {
	a.Generation++
	a.Status = fleetv1.ClusterAssignmentStatus{ObservedGeneration: a.Generation, Digest: a.Spec.Digest, Conditions: isReady(a.Generation)}
	pins := map[string]string{}
	for _, s := range a.Spec.Sources {
		pins[s.Namespace+"/"+s.Name] = s.Revision
		m.put(&sourcev1.GitRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Generation: a.Generation},
			Status:     sourcev1.GitRepositoryStatus{Artifact: &meta.Artifact{Revision: s.Revision}, Conditions: isReady(a.Generation)},
		})
	}
	for _, p := range a.Spec.Placements {
		for _, u := range p.Units {
			k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: u.Namespace, Name: u.Name, Generation: a.Generation}}
			if err := json.Unmarshal(u.Spec.Raw, &k.Spec); err != nil {
				continue // which the hub is told: the unit is not there
			}
			namespace := k.Spec.SourceRef.Namespace
			if namespace == "" {
				namespace = u.Namespace
			}
			k.Status = kustomizev1.KustomizationStatus{ObservedGeneration: a.Generation, Conditions: isReady(a.Generation), LastAppliedRevision: pins[namespace+"/"+k.Spec.SourceRef.Name]}
			m.put(k)
		}
	}
}

func isReady(generation int64) []metav1.Condition {
	return []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Reason: meta.SucceededReason,
		ObservedGeneration: generation, LastTransitionTime: metav1.NewTime(time.Now())}}
}

// GetInformer implements cache.Informers.
func (m *memberAPI) GetInformer(_ context.Context, o kubeclient.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return &memberInformer{api: m, kind: reflect.TypeOf(o)}, nil
}

// GetInformerForKind implements cache.Informers.
func (m *memberAPI) GetInformerForKind(context.Context, schema.GroupVersionKind, ...cache.InformerGetOption) (cache.Informer, error) {
	return nil, fmt.Errorf("watch by kind: %w", errNotSimulated)
}

// RemoveInformer implements cache.Informers.
func (m *memberAPI) RemoveInformer(context.Context, kubeclient.Object) error { return nil }

// Start implements cache.Informers.
func (m *memberAPI) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// WaitForCacheSync implements cache.Informers.
func (m *memberAPI) WaitForCacheSync(context.Context) bool { return true }

// IndexField implements client.FieldIndexer.
func (m *memberAPI) IndexField(context.Context, kubeclient.Object, string, kubeclient.IndexerFunc) error {
	return fmt.Errorf("index: %w", errNotSimulated)
}

// memberInformer tells of the objects of one kind.
type memberInformer struct {
	cache.Informer // nil, as above
	api            *memberAPI
	kind           reflect.Type
}

// AddEventHandler implements cache.Informer.
func (i *memberInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.api.mu.Lock()
	defer i.api.mu.Unlock()
	i.api.watchers[i.kind] = append(i.api.watchers[i.kind], h)
	return nil, nil //nolint:nilnil // nobody asks it
}
