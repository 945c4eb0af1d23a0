package release

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/kube"
)

// WatchOptions are what a Watch is made of.
type WatchOptions struct {
	// Cluster with the engine's own credentials.
	Cluster *kube.Cluster
	// Notify is called with each unit that uses a release which somebody else changed,
	// never with a lock held. It must not block.
	Notify func(unit types.NamespacedName)
	Clock  clock.PassiveClock
	Log    logr.Logger
}

// Watch knows which revisions of releases one cluster stores, from a watch of
// metadata that lasts as long as somebody uses a release. Where the credentials may not list
// Secrets in all namespaces it knows nothing, says so once in the log, and the
// storage has to be read at each reconcile. It is safe for concurrent use.
type Watch struct {
	WatchOptions
	life context.Context //nolint:containedctx // the watch outlives the call that starts it

	mu     sync.Mutex
	users  map[types.NamespacedName]Key // guarded by mu
	known  map[Key]*revisions           // guarded by mu
	stop   context.CancelFunc           // guarded by mu; nil: not started
	synced bool                         // guarded by mu
	// refusedAt is when the API server refused the watch; zero: it did not.
	refusedAt time.Time // guarded by mu
}

// revisions are what is known of one release.
type revisions struct {
	stored map[int]Seen
	// ours is the newest that we wrote of each revision; a revision that we removed has no
	// resource version.
	ours map[int]Seen
	// marked are those that bear the marks of the engine.
	marked map[int]bool
	// writing counts our writes under way; what somebody else does meanwhile is
	// told after them.
	writing int
}

// NewWatch returns a watch that has not begun. All ends with ctx.
func NewWatch(ctx context.Context, o WatchOptions) *Watch {
	return &Watch{WatchOptions: o, life: ctx, users: map[types.NamespacedName]Key{}, known: map[Key]*revisions{}}
}

// askAgain is how long a refused watch is left alone: rights may be given.
const askAgain = 10 * time.Minute

// Use tells that the unit uses the release, and no other any more. The first begins the watch.
func (w *Watch) Use(unit types.NamespacedName, release Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users[unit] = release
	refused := !w.refusedAt.IsZero() && w.Clock.Since(w.refusedAt) < askAgain
	if w.stop != nil || refused || w.life.Err() != nil {
		return
	}
	life, stop := context.WithCancel(w.life)
	w.stop = stop
	run := &watching{watch: w, stop: stop}
	reflector := cache.NewReflectorWithOptions(run.listWatch(), nil, run, cache.ReflectorOptions{
		Name: "releases", TypeDescription: secretResource.String(),
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 4 * time.Second, Factor: 2, Jitter: 0.5, Steps: math.MaxInt32},
	})
	go reflector.RunWithContext(life)
}

// Leave tells that the unit uses no release any more. The last ends the watch.
func (w *Watch) Leave(unit types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.users, unit)
	if len(w.users) == 0 {
		w.end()
	}
}

// end forgets all; the lock is held.
func (w *Watch) end() {
	if w.stop != nil {
		w.stop()
	}
	w.stop, w.synced, w.known = nil, false, map[Key]*revisions{}
}

// Refused reports whether the API server does not let us watch.
func (w *Watch) Refused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.refusedAt.IsZero()
}

// Known implements [Journal]: the revisions of the release, newest first. It is false while the
// watch has not begun, or may not be.
func (w *Watch) Known(release Key) ([]Seen, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced {
		return nil, false
	}
	var seen []Seen
	if r, ok := w.known[release]; ok {
		for _, revision := range r.stored {
			seen = append(seen, revision)
		}
	}
	sortSeen(seen)
	return seen, true
}

// of returns what is known of a release, made when it is not there; the lock is held.
func (w *Watch) of(release Key) *revisions {
	r, ok := w.known[release]
	if !ok {
		r = newRevisions()
		w.known[release] = r
	}
	return r
}

// Writing implements [Journal].
func (w *Watch) Writing(release Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of(release).writing++
}

// Wrote implements [Journal].
func (w *Watch) Wrote(release Key, now Seen) {
	w.ended(release, func(r *revisions) {
		stored, ok := r.stored[now.Version]
		r.ours[now.Version] = now
		r.note(now.Version, now.ResourceVersion != "")
		switch {
		case now.ResourceVersion == "" && ok: // its event is still to come
			delete(r.stored, now.Version)
		case now.ResourceVersion == "":
			delete(r.ours, now.Version)
		case !ok || newer(now.ResourceVersion, stored.ResourceVersion):
			r.stored[now.Version] = now
		}
	})
}

// NotWritten implements [Journal].
func (w *Watch) NotWritten(release Key) { w.ended(release, func(*revisions) {}) }

func (w *Watch) ended(release Key, note func(*revisions)) {
	w.mu.Lock()
	r := w.of(release)
	if r.writing > 0 { // else the watch began anew meanwhile
		r.writing--
	}
	note(r)
	tell := w.tell(release, r)
	w.mu.Unlock()
	w.notify(tell)
}

// tell returns the units to be told of what somebody else did to the release, once; the
// lock is held.
func (w *Watch) tell(release Key, r *revisions) []types.NamespacedName {
	if r.writing > 0 {
		return nil
	}
	foreign := false
	for version, stored := range r.stored {
		ours, ok := r.ours[version]
		if !ok || ours.ResourceVersion != stored.ResourceVersion && newer(stored.ResourceVersion, ours.ResourceVersion) {
			foreign, r.ours[version] = true, stored
		}
	}
	for version, ours := range r.ours {
		if _, ok := r.stored[version]; !ok && ours.ResourceVersion != "" {
			foreign = true
			delete(r.ours, version)
		}
	}
	if len(r.stored) == 0 && len(r.ours) == 0 {
		delete(w.known, release)
	}
	if !foreign || !w.synced {
		return nil
	}
	var units []types.NamespacedName
	for unit, used := range w.users {
		if used == release {
			units = append(units, unit)
		}
	}
	return units
}

func (w *Watch) notify(units []types.NamespacedName) {
	for _, unit := range units {
		w.Notify(unit)
	}
}

// watching is one run of the watch, from the first user to the last. It is a
// cache.ReflectorStore that keeps a line per revision instead of Secrets.
type watching struct {
	watch *Watch
	stop  context.CancelFunc
}

func (x *watching) listWatch() cache.ListerWatcher {
	only := metav1.ListOptions{LabelSelector: "owner=helm", FieldSelector: ofHelm}
	return kube.ListWatch(x.watch.Cluster.Metadata.Resource(secretResource), only, x.note)
}

// note ends the watch when the API server refuses it.
func (x *watching) note(err error) {
	if !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
		return
	}
	w := x.watch
	w.mu.Lock()
	first := w.refusedAt.IsZero()
	w.refusedAt = w.Clock.Now()
	w.end()
	units := make([]types.NamespacedName, 0, len(w.users))
	for unit := range w.users {
		units = append(units, unit)
	}
	w.mu.Unlock()
	if first {
		w.Log.Info("releases are read at each reconcile: these credentials may not list and watch Secrets in all namespaces", "cause", err.Error())
	}
	w.notify(units)
}

// Add implements cache.ReflectorStore.
func (x *watching) Add(obj any) error { return x.Update(obj) }

// Update implements cache.ReflectorStore.
func (x *watching) Update(obj any) error {
	x.saw(obj, func(r *revisions, seen Seen) {
		stored, ok := r.stored[seen.Version]
		if r.removed(seen.Version) || ok && !newer(seen.ResourceVersion, stored.ResourceVersion) {
			return // an event from before what we did
		}
		r.stored[seen.Version] = seen
		r.note(seen.Version, marked(obj))
	})
	return nil
}

// Delete implements cache.ReflectorStore.
func (x *watching) Delete(obj any) error {
	x.saw(obj, func(r *revisions, seen Seen) {
		if stored, ok := r.stored[seen.Version]; ok && !newer(stored.ResourceVersion, seen.ResourceVersion) {
			delete(r.stored, seen.Version)
			delete(r.marked, seen.Version)
		}
		if r.removed(seen.Version) {
			delete(r.ours, seen.Version)
		}
	})
	return nil
}

// removed reports whether we removed the revision and the event of that is still to come.
func (r *revisions) removed(version int) bool {
	ours, ok := r.ours[version]
	return ok && ours.ResourceVersion == ""
}

func (x *watching) saw(obj any, note func(*revisions, Seen)) {
	m, ok := obj.(metav1.Object)
	if !ok {
		return
	}
	release, seen, ok := reduce(m)
	if !ok {
		return
	}
	w := x.watch
	w.mu.Lock()
	r := w.of(release)
	note(r, seen)
	tell := w.tell(release, r)
	w.mu.Unlock()
	w.notify(tell)
}

// Replace implements cache.ReflectorStore.
func (x *watching) Replace(list []any, _ string) error {
	there, bearing := map[Key]map[int]Seen{}, map[Key]map[int]bool{}
	for _, obj := range list {
		if m, ok := obj.(metav1.Object); ok {
			if release, seen, ok := reduce(m); ok {
				if there[release] == nil {
					there[release], bearing[release] = map[int]Seen{}, map[int]bool{}
				}
				there[release][seen.Version] = seen
				if marked(obj) {
					bearing[release][seen.Version] = true
				}
			}
		}
	}
	w := x.watch
	w.mu.Lock()
	first := !w.synced
	w.synced, w.refusedAt = true, time.Time{}
	var tell []types.NamespacedName
	for release := range there {
		w.of(release)
	}
	for release, r := range w.known {
		r.stored = there[release]
		r.marked = bearing[release]
		if r.stored == nil {
			r.stored, r.marked = map[int]Seen{}, map[int]bool{}
		}
		tell = append(tell, w.tell(release, r)...)
	}
	if first { // they have read what they know while nobody vouched for it
		tell = nil
		for unit := range w.users {
			tell = append(tell, unit)
		}
	}
	w.mu.Unlock()
	w.notify(tell)
	return nil
}

// Resync implements cache.ReflectorStore.
func (x *watching) Resync() error { return nil }
