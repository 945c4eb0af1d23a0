package observe

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// foreign is an object that we do not deliver and whose health units ask for.
type foreign struct {
	ledger *Ledger
	key    foreignKey
	rules  *health.Rules
	stop   context.CancelFunc
	units  []types.NamespacedName // guarded by Ledger.mu
	known  bool                   // guarded by Ledger.mu
	// listed: it was looked for. That it is not there is told once, since it may have
	// gone between a look of the unit and the beginning of the watch.
	listed  bool           // guarded by Ledger.mu
	verdict health.Verdict // guarded by Ledger.mu
}

// foreignKey names a follower of an object. A unit that has its own words for the
// health of the kind follows by itself; all others share one, without a unit.
type foreignKey struct {
	id   object.ID
	unit types.NamespacedName
}

// keyOf returns the follower of an object that answers to the unit; the lock is held.
func (l *Ledger) keyOf(id object.ID, unit types.NamespacedName) foreignKey {
	if l.rules[unit].Judge(id.GroupKind()) {
		return foreignKey{id: id, unit: unit}
	}
	return foreignKey{id: id}
}

// Reference names an object whose health a unit asks for.
type Reference struct {
	ID      object.ID
	Version string
}

// Follow makes the ledger follow exactly these objects on behalf of the unit,
// besides those that it delivers.
func (l *Ledger) Follow(ctx context.Context, unit types.NamespacedName, refs []Reference) error {
	for _, ref := range refs {
		if err := l.followOne(ctx, unit, ref); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, f := range l.foreign {
		if key == l.keyOf(key.id, unit) && slices.ContainsFunc(refs, func(r Reference) bool { return r.ID == key.id }) {
			continue
		}
		l.unfollow(f, unit)
	}
	return nil
}

// unfollow ends what the follower does for the unit; the lock is held.
func (l *Ledger) unfollow(f *foreign, unit types.NamespacedName) {
	f.units = slices.DeleteFunc(f.units, func(u types.NamespacedName) bool { return u == unit })
	if len(f.units) == 0 {
		f.stop()
		delete(l.foreign, f.key)
	}
}

func (l *Ledger) followOne(ctx context.Context, unit types.NamespacedName, ref Reference) error {
	l.mu.RLock()
	key := l.keyOf(ref.ID, unit)
	f, known := l.foreign[key]
	there := known && slices.Contains(f.units, unit)
	if r, ok := l.records[ref.ID]; ok && r.UID != "" && r.Owner == unit {
		there = true // the watch of what the unit delivers tells of it
	}
	l.mu.RUnlock()
	if there {
		return nil
	}
	resource, err := l.cluster.Resources.Of(ctx, schema.GroupVersionKind{Group: ref.ID.Group, Version: ref.Version, Kind: ref.ID.Kind})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, known = l.foreign[key]; known {
		f.units = append(f.units, unit)
		return nil
	}
	life, stop := context.WithCancel(l.life)
	f = &foreign{ledger: l, key: key, rules: l.rules[key.unit], stop: stop, units: []types.NamespacedName{unit}}
	l.foreign[key] = f
	reflector := cache.NewReflectorWithOptions(f.listWatch(resource), nil, f, reflectorOptions(resource))
	go reflector.RunWithContext(life) //nolint:contextcheck // it outlives the call that starts it
	return nil
}

func (f *foreign) listWatch(r kube.Resource) cache.ListerWatcher {
	namespace := f.key.id.Namespace
	if !r.Namespaced {
		namespace = ""
	}
	client := f.ledger.cluster.Dynamic.Resource(r.GroupVersionResource).Namespace(namespace)
	return kube.ListWatch(client, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", f.key.id.Name).String()}, f.note)
}

// note tells those who wait for the object that we may not look at it.
func (f *foreign) note(err error) {
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		f.set(true, health.Verdict{Status: health.Unknown, Message: "cannot be watched: " + err.Error()})
	}
}

func (f *foreign) set(known bool, v health.Verdict) {
	f.ledger.mu.Lock()
	changed := !f.listed || f.known != known || f.verdict != v
	f.listed, f.known, f.verdict = true, known, v
	units := slices.Clone(f.units)
	f.ledger.mu.Unlock()
	if !changed {
		return
	}
	for _, unit := range units {
		f.ledger.notify(Change{Owner: unit, ID: f.key.id, Health: true})
	}
}

// Add implements cache.ReflectorStore.
func (f *foreign) Add(obj any) error { return f.Update(obj) }

// Update implements cache.ReflectorStore.
func (f *foreign) Update(obj any) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		f.set(true, f.rules.Of(f.ledger.life, u))
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (f *foreign) Delete(any) error {
	f.set(false, health.Verdict{})
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *foreign) Replace(list []any, _ string) error {
	if len(list) == 0 {
		f.set(false, health.Verdict{})
	}
	for _, obj := range list {
		if err := f.Update(obj); err != nil {
			return err
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *foreign) Resync() error { return nil }
