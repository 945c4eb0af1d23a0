package controller

// References are the ConfigMaps and Secrets of the engine's own cluster that units
// and sources read: values of variables, credentials, keys, kubeconfigs. Whoever
// reads one does it here, so that
//
//   - a change of it, its coming and its going wake those who read it, at once, and
//     nobody else;
//   - it is asked for once per change, however many read it: 1,000 units that read one
//     ConfigMap cost one request;
//   - nothing is held in memory that nobody refers to.
//
// A reconcile that reads begins with begin, reads through reader (as any client
// would) or read, and closes with end: what it did not read again it no longer
// refers to. A reader that is gone is told with forget.
//
// A value is never older than what the engine itself applied: wrote drops what a
// run touched. Otherwise it is as fresh as a watch that is up, and while the watch
// is down it is read again after a moment.

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Kinds that can be referred to.
const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

// user is an object of the engine's own kinds that refers to others.
type user struct {
	Kind string
	types.NamespacedName
}

// reference names a ConfigMap or a Secret.
type reference struct {
	Kind string
	types.NamespacedName
}

// String names the object for messages.
func (r reference) String() string { return r.Kind + "/" + r.NamespacedName.String() }

// value is a referenced object as it was read. It must not be changed.
type value struct {
	data map[string][]byte
	// version is the resource version, "" of an object that is not there.
	version string
}

const (
	// unread is the version of somebody who has not read yet.
	unread = "unread"
	// absent is the version of an object that is not there.
	absent = ""
	// settling is for how long a value stands while no watch vouches for it.
	settling = 5 * time.Second
	// readingFor bounds one request, in which others may wait for its answer.
	readingFor = 30 * time.Second
)

// references holds who refers to what, and the values that they read.
type references struct {
	source   client.Reader // asks the API server
	metadata metadata.Interface
	clock    clock.PassiveClock
	// wake is called without any lock held.
	wake func(user)
	// follow runs a watch until the engine ends.
	follow func(*shelf)

	mu      sync.Mutex
	shelves map[string]*shelf    // guarded by mu; by kind, from its first reference on
	uses    map[user]*uses       // guarded by mu
	entries map[reference]*entry // guarded by mu
}

// uses is what one user refers to: each reference with the round that it was last
// read in.
type uses struct {
	round uint64
	of    map[reference]uint64
}

// entry is one object that somebody refers to.
type entry struct {
	// reading is held while it is read, so that it is read once for all who ask.
	reading sync.Mutex
	// value is nil when it has to be read.
	value  *value
	readAt time.Time
	// asking says that the API server is being asked for it; changes counts what was
	// heard of it, and heard is the version that the watch told last, unread if
	// something newer is known to be: an answer that something was heard of
	// meanwhile may be out of date.
	asking  bool
	changes uint64
	heard   string
	// users holds the version that each user read last.
	users map[user]string
}

// newReferences returns the room, empty. Watches run until ctx is done.
func newReferences(ctx context.Context, source client.Reader, meta metadata.Interface, c clock.PassiveClock, wake func(user)) *references {
	return &references{
		source: source, metadata: meta, clock: c, wake: wake,
		follow:  func(s *shelf) { go s.run(ctx) },
		shelves: map[string]*shelf{}, uses: map[user]*uses{}, entries: map[reference]*entry{},
	}
}

// reader returns a reader of ConfigMaps and Secrets that registers u with all that
// it reads. Only the name, the resource version and the data are filled in. The
// bytes are shared: they must not be changed.
func (r *references) reader(u user) client.Reader { return referenceReader{r, u} }

// read returns the data of a ConfigMap or Secret and its resource version, and
// registers u as a reader of it, also when it is not there: that is a failure of
// kind NotFound. The data is shared and must not be changed.
func (r *references) read(ctx context.Context, u user, kind string, key types.NamespacedName) (data map[string][]byte, version string, err error) {
	return readData(ctx, r.reader(u), reference{kind, key}, "")
}

// begin starts a round of reading.
func (r *references) begin(u user) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mine := r.uses[u]; mine != nil {
		mine.round++
	}
}

// end closes a round: u no longer refers to what it did not read in it.
func (r *references) end(u user) {
	r.mu.Lock()
	defer r.mu.Unlock()
	mine := r.uses[u]
	if mine == nil {
		return
	}
	for ref, round := range mine.of {
		if round != mine.round {
			r.release(u, ref)
		}
	}
}

// forget ends everything that u refers to.
func (r *references) forget(u user) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mine := r.uses[u]; mine != nil {
		for ref := range mine.of {
			r.release(u, ref)
		}
	}
}

// release ends one reference. The caller holds mu.
func (r *references) release(u user, ref reference) {
	mine := r.uses[u]
	delete(mine.of, ref)
	if len(mine.of) == 0 {
		delete(r.uses, u)
	}
	e := r.entries[ref]
	delete(e.users, u)
	if len(e.users) == 0 {
		delete(r.entries, ref)
	}
}

// wrote drops what the engine applied or deleted, or may have, and wakes its readers.
func (r *references) wrote(ids []object.ID) {
	var woken []user
	r.mu.Lock()
	for _, id := range ids {
		if id.Group != "" {
			continue
		}
		e := r.entries[reference{id.Kind, types.NamespacedName{Namespace: id.Namespace, Name: id.Name}}]
		if e != nil {
			e.drop()
			woken = append(woken, slices.Collect(maps.Keys(e.users))...)
		}
	}
	r.mu.Unlock()
	r.wakeAll(woken)
}

func (r *references) wakeAll(users []user) {
	for _, u := range users {
		r.wake(u)
	}
}

// drop makes the next reader ask again. The caller holds references.mu.
func (e *entry) drop() {
	e.value, e.heard = nil, unread
	e.changes++
}

// get returns the value of an object for u: the one at hand, or what the API
// server answers now.
func (r *references) get(ctx context.Context, u user, ref reference) (value, error) {
	e, err := r.register(u, ref)
	if err != nil {
		return value{}, err
	}
	if v, ok := r.atHand(u, ref, e); ok {
		return v, nil
	}
	e.reading.Lock()
	defer e.reading.Unlock()
	if v, ok := r.atHand(u, ref, e); ok {
		return v, nil
	}
	r.mu.Lock()
	before := e.changes
	e.asking = true
	r.mu.Unlock()
	v, err := r.ask(ctx, ref)
	if r.answered(e, u, before, v, err) {
		r.wake(u)
	}
	return v, err
}

// answered takes what the API server answered to a question that was put when this
// many changes had been heard of, and reports whether u has to ask again.
func (r *references) answered(e *entry, u user, before uint64, v value, err error) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.asking = false
	if err != nil {
		return e.changes != before
	}
	e.noteRead(u, v.version)
	if e.changes != before && e.heard != v.version {
		return true
	}
	e.value, e.readAt = &v, r.clock.Now()
	return false
}

// register notes that u reads the object, and makes sure that its kind is watched.
func (r *references) register(u user, ref reference) (*entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shelves[ref.Kind]
	if s == nil {
		s = newShelf(r, ref.Kind)
		r.shelves[ref.Kind] = s
		r.follow(s)
	}
	mine := r.uses[u]
	if mine == nil {
		mine = &uses{of: map[reference]uint64{}}
		r.uses[u] = mine
	}
	mine.of[ref] = mine.round
	e := r.entries[ref]
	if e == nil {
		e = &entry{users: map[user]string{}, heard: unread}
		r.entries[ref] = e
	}
	if _, ok := e.users[u]; !ok {
		e.users[u] = unread
	}
	return e, s.denied
}

// noteRead notes what u read, if it still refers to it. The caller holds references.mu.
func (e *entry) noteRead(u user, version string) {
	if _, ok := e.users[u]; ok {
		e.users[u] = version
	}
}

// atHand returns the value in memory, if it still stands.
func (r *references) atHand(u user, ref reference, e *entry) (value, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.value == nil || !r.shelves[ref.Kind].live() && r.clock.Since(e.readAt) >= settling {
		return value{}, false
	}
	e.noteRead(u, e.value.version)
	return *e.value, true
}

// ask reads the object from the API server.
func (r *references) ask(ctx context.Context, ref reference) (value, error) {
	ctx, cancel := context.WithTimeout(ctx, readingFor)
	defer cancel()
	v, err := ask(ctx, r.source, ref)
	if apierrors.IsNotFound(err) {
		return value{version: absent}, nil
	}
	return v, err
}

// ask reads a ConfigMap or Secret with any client.
func ask(ctx context.Context, reader client.Reader, ref reference) (value, error) {
	switch ref.Kind {
	case kindConfigMap:
		var c corev1.ConfigMap
		if err := reader.Get(ctx, ref.NamespacedName, &c); err != nil {
			return value{}, err
		}
		v := value{data: make(map[string][]byte, len(c.Data)), version: c.ResourceVersion}
		for name, text := range c.Data {
			v.data[name] = []byte(text)
		}
		return v, nil
	case kindSecret:
		var s corev1.Secret
		err := reader.Get(ctx, ref.NamespacedName, &s)
		return value{data: s.Data, version: s.ResourceVersion}, err
	default:
		return value{}, &failure.Error{Op: "read", Kind: failure.Invalid, Object: ref.String(),
			Err: fmt.Errorf("a %s holds no values", ref.Kind), Remedy: "refer to a ConfigMap or a Secret"}
	}
}

// readData reads the data of a ConfigMap or Secret with any client. Failures are
// typed; one of kind NotFound names the field that refers to it, where that is given.
func readData(ctx context.Context, reader client.Reader, ref reference, field string) (map[string][]byte, string, error) {
	v, err := ask(ctx, reader, ref)
	switch {
	case err == nil:
		return v.data, v.version, nil
	case apierrors.IsNotFound(err):
		remedy := "create it"
		if field != "" {
			remedy += ", or correct " + field
		}
		return nil, absent, &failure.Error{Op: "read", Kind: failure.NotFound, Object: ref.String(), Err: err, Remedy: remedy}
	case failure.KindOf(err) != "":
		return nil, absent, err
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return nil, absent, &failure.Error{Op: "read", Kind: failure.Denied, Object: ref.String(), Err: err,
			Remedy: "give the engine's service account the right to get, list and watch it"}
	default:
		return nil, absent, &failure.Error{Op: "read", Kind: failure.Unavailable, Object: ref.String(), Err: err}
	}
}
