// Package observe is the room of what is: the ledger, which knows of every
// object that we deliver to a cluster whether it still is as we applied it and
// how healthy it is. It watches and never polls; DESIGN in docs/design/engine.md.
package observe

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"sync"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
	"github.com/bowline-dev/bowline/internal/plan"
)

// Record is what the ledger knows of one object.
type Record struct {
	UID types.UID
	// Version is the newest resourceVersion seen.
	Version uint64
	// Digest is the content of the applied annotation: what was last sent.
	Digest string
	// Owner is the unit that the owner labels name.
	Owner types.NamespacedName
	// Verdict is the object's health.
	Verdict health.Verdict
	// by are the rules that the verdict was found by.
	by *health.Rules
	// Marks are the annotations on the live object that steer us.
	Marks plan.Marks
	// Contender is the last field manager, other than ours, that wrote to
	// the object's main resource.
	Contender string

	own  ownership
	base ownership // our field set as of the last apply or adoption; 0: unknown
	// fields is our raw field set, held only while base is unknown.
	fields []byte
	// applying counts applies under way; their events are no drift.
	applying int
	// blank says that the server keeps no field ownership for this kind.
	blank bool
}

// state says how the object relates to what was applied.
func (r *Record) state() plan.State {
	switch {
	case r.blank:
		return plan.Unowned
	case r.base == 0:
		return plan.Unproven
	case r.own != r.base:
		return plan.Drifted
	default:
		return plan.InSync
	}
}

// Change tells that something about an object of a unit changed.
type Change struct {
	Owner types.NamespacedName
	ID    object.ID
	// Drift: the object is gone, or fields of ours were changed.
	Drift bool
	// Health: the verdict changed.
	Health bool
}

// Ledger is the ledger of one cluster. It is safe for concurrent use.
type Ledger struct {
	cluster *kube.Cluster
	manager string
	group   string // of the labels by which objects are ours
	clock   clock.PassiveClock
	log     logr.Logger
	notify  func(Change)
	yields  func(types.NamespacedName) bool            // may be nil
	beside  func(object.ID, types.NamespacedName) bool // may be nil
	seed    maphash.Seed
	// life ends all watches.
	life context.Context //nolint:containedctx // watches outlive the call that starts them

	mu      sync.RWMutex
	records map[object.ID]*Record                // guarded by mu
	watches map[schema.GroupKind]*watch          // guarded by mu
	foreign map[foreignKey]*foreign              // guarded by mu
	fights  map[object.ID]fight                  // guarded by mu
	wanted  map[object.ID]wantedBy               // guarded by mu
	wantsOf map[types.NamespacedName][]object.ID // guarded by mu; the same, by unit
	// expected is whose an object will be, by what the units are made from, before they are built.
	expected map[object.ID]types.NamespacedName // guarded by mu
	// contents are those of them that the unit only wants to be there. Only units that have some are in it.
	contents map[types.NamespacedName]map[object.ID]bool // guarded by mu
	ignored  map[types.NamespacedName]ignoredOf          // guarded by mu; what units leave to others
	// rules are the units' own words for health; unjudged are the units whose
	// objects have not been judged by them yet.
	rules    map[types.NamespacedName]*health.Rules // guarded by mu
	unjudged map[types.NamespacedName]bool          // guarded by mu
	// doubtful are the units of which no more is known than an inventory that others
	// may have written.
	doubtful map[types.NamespacedName]bool // guarded by mu
}

// Options of a Ledger.
type Options struct {
	Cluster *kube.Cluster
	// Manager is the field manager that applies.
	Manager string
	// Group is the one that units label their objects with; empty means that of
	// Kustomizations.
	Group string
	Clock clock.PassiveClock
	Log   logr.Logger
	// Notify is called for every change, never with a lock held. It must not block.
	Notify func(Change)
	// Yields says which units give way to others where both want an object; nil means
	// that the first that wanted it has it.
	Yields func(types.NamespacedName) bool
	// Beside reports whether a unit of another kind, which has a ledger of its own, gets the object
	// from this unit; nil where there is none. It is never called with a lock held.
	Beside func(object.ID, types.NamespacedName) bool
}

// NewLedger returns an empty ledger whose watches end with ctx.
func NewLedger(ctx context.Context, o Options) *Ledger {
	return &Ledger{
		cluster: o.Cluster, manager: o.Manager, group: cmp.Or(o.Group, object.KustomizeGroup), clock: o.Clock, log: o.Log, notify: o.Notify, yields: o.Yields, beside: o.Beside,
		seed: maphash.MakeSeed(), life: ctx,
		records:  map[object.ID]*Record{},
		watches:  map[schema.GroupKind]*watch{},
		foreign:  map[foreignKey]*foreign{},
		fights:   map[object.ID]fight{},
		wanted:   map[object.ID]wantedBy{},
		contents: map[types.NamespacedName]map[object.ID]bool{},
		wantsOf:  map[types.NamespacedName][]object.ID{}, doubtful: map[types.NamespacedName]bool{},
		ignored: map[types.NamespacedName]ignoredOf{},
		rules:   map[types.NamespacedName]*health.Rules{}, unjudged: map[types.NamespacedName]bool{},
	}
}

// Get returns what is known of an object. What is not known does not exist on
// the cluster with our labels, provided its kind is watched.
func (l *Ledger) Get(id object.ID) (Record, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	r, ok := l.records[id]
	if !ok || r.UID == "" {
		return Record{}, false
	}
	return *r, true
}

// Len returns the number of objects known.
func (l *Ledger) Len() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.records)
}

// Known implements plan.Ledger.
func (l *Ledger) Known(id object.ID) (plan.Known, bool) {
	r, ok := l.Get(id)
	if !ok {
		return plan.Known{}, false
	}
	return plan.Known{
		UID: r.UID, Digest: r.Digest, Owner: r.Owner, State: r.state(), Marks: r.Marks, Contender: r.Contender,
		Terminating: r.Verdict.Status == health.Terminating,
	}, true
}

// Ready implements apply.Observer.
func (l *Ledger) Ready(id object.ID) (bool, error) {
	r, ok := l.Get(id)
	if ok && r.Verdict.Status == health.Failed {
		return false, errors.New(r.Verdict.Message)
	}
	return ok && r.Verdict.Status == health.Current, nil
}

// Adopt implements plan.Ledger: it proves, for an object that an earlier process
// applied, that nobody changed a field of ours. The digests are known to be equal.
func (l *Ledger) Adopt(id object.ID, want map[string]any) plan.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[id]
	if ok && r.state() != plan.Unproven {
		return r.state() // settled meanwhile
	}
	if !ok || len(r.fields) == 0 {
		return plan.Drifted
	}
	ignored := l.ignored[r.Owner][id]
	want = ignored.Without(&unstructured.Unstructured{Object: want}).Object
	fields := ignored.Cut(r.fields)
	r.own = ownershipOf(l.seed, fields)
	covered, err := Covers(fields, want, kube.Builtin(id.Group))
	switch {
	case err != nil || covered == NotCovered:
		return plan.Drifted
	case covered == Undecided:
		return plan.Unproven
	}
	r.base, r.fields = r.own, nil
	return plan.InSync
}

// Settle implements plan.Ledger.
func (l *Ledger) Settle(id object.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.records[id]; ok && !r.blank {
		if len(r.fields) > 0 {
			r.own = ownershipOf(l.seed, l.ignored[r.Owner][id].Cut(r.fields))
		}
		r.base, r.fields = r.own, nil
	}
}

// Applying tells that an apply of the object is under way. It is followed by
// Applied or by NotApplied.
func (l *Ledger) Applying(id object.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[id]
	if !ok {
		r = &Record{}
		l.records[id] = r
	}
	r.applying++
}

// NotApplied tells that an apply failed.
func (l *Ledger) NotApplied(id object.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.records[id]; ok {
		r.applying--
		l.dropPhantom(id, r)
	}
}

// dropPhantom removes a record that an apply made and that no object stands
// behind. The lock is held.
func (l *Ledger) dropPhantom(id object.ID, r *Record) {
	if r.UID == "" && r.applying <= 0 {
		delete(l.records, id)
	}
}

// Applied takes the API server's answer to an apply as the new base. Watch
// events of the apply, and of what others did after it, may have come before.
func (l *Ledger) Applied(id object.ID, digest string, answer *metav1.PartialObjectMetadata) {
	seen := l.reduceMeta(id, answer)
	seen.Digest = digest
	seen.base, seen.fields = seen.own, nil
	seen.blank = seen.own == 0
	l.mu.Lock()
	r, ok := l.records[id]
	if !ok {
		r = &Record{applying: 1}
		l.records[id] = r
	}
	r.applying--
	l.defended(id)
	change := Change{Owner: seen.Owner, ID: id}
	switch {
	case r.Version < seen.Version:
		seen.applying, seen.Verdict = r.applying, l.verdictAfterApply(id.GroupKind())
		*r = seen
	case r.UID == seen.UID:
		r.base, r.fields, r.blank = seen.base, nil, seen.blank
		// A newer event may have brought somebody else's change.
		change.Drift = r.state() == plan.Drifted && r.applying == 0
	default:
		// What we applied is gone: nothing is there, or another object of the name,
		// about which the next plan decides.
		change.Drift = true
		l.dropPhantom(id, r)
	}
	if change.Drift {
		l.attacked(id)
	}
	l.mu.Unlock()
	if change.Drift {
		l.notify(change)
	}
}

// verdictAfterApply is the health of an object that was just changed: kinds
// watched as metadata are healthy when they exist, of others the watch tells.
// The lock is held.
func (l *Ledger) verdictAfterApply(gk schema.GroupKind) health.Verdict {
	if w, ok := l.watches[gk]; ok && w.metadataOnly {
		return health.Verdict{Status: health.Current}
	}
	return health.Verdict{Status: health.InProgress, Message: "waiting for its status"}
}

// Deleted tells that the object was deleted by us and is gone or going.
func (l *Ledger) Deleted(id object.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[id]
	if !ok {
		return
	}
	if l.watches[id.GroupKind()] != nil {
		r.Verdict = health.Verdict{Status: health.Terminating, Message: "is being deleted"}
		return // the watch will tell when it is gone
	}
	delete(l.records, id)
}

// Doubt makes the ledger forget what it holds to be true of an object's
// ownership, so that the next plan heals it.
func (l *Ledger) Doubt(id object.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.records[id]; ok {
		r.base = r.own + 1
	}
}
