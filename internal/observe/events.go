package observe

import (
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// reduceMeta keeps of an object's metadata what a record holds. The decoders give each
// string and each field set bytes of its own, so that none keeps the message alive.
func (l *Ledger) reduceMeta(id object.ID, m metav1.Object) Record {
	entries := m.GetManagedFields() // of a whole object they are decoded with each call
	owner, _ := object.OwnerOf(m.GetLabels(), l.group)
	version, _ := strconv.ParseUint(m.GetResourceVersion(), 10, 64)
	r := Record{
		UID: m.GetUID(), Version: version,
		Digest:    m.GetAnnotations()[object.AppliedDigestAnnotation],
		Owner:     types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name},
		fields:    ownEntry(entries, l.manager),
		Contender: contender(entries, l.manager),
		Marks:     plan.MarksOf(m, l.group),
	}
	r.own = l.ownershipOf(id, &r)
	return r
}

// contender returns the last other field manager that wrote to anything but the
// status: kubectl scale, for one, writes to a subresource of its own.
func contender(entries []metav1.ManagedFieldsEntry, manager string) string {
	var name string
	var last metav1.Time
	for i := range entries {
		e := &entries[i]
		if e.Manager == manager || e.Subresource == "status" || e.Time == nil || e.Time.Before(&last) {
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
	if known && (seen.Version < old.Version || seen.Version == old.Version && l.judgedBefore(seen, old)) {
		l.mu.Unlock()
		return // older than the answer to our own apply
	}
	if !known {
		old = &Record{}
		l.records[id] = old
	}
	before := *old
	seen.applying = before.applying
	if before.UID == seen.UID {
		seen.base, seen.blank = before.base, before.blank
	}
	if seen.base != 0 {
		seen.fields = nil
	}
	*old = seen
	change := Change{Owner: seen.Owner, ID: id, Health: before.Verdict != seen.Verdict, Drift: drifts(before, seen)}
	if change.Drift && seen.applying == 0 {
		l.attacked(id)
	}
	l.mu.Unlock()
	if change.Drift || change.Health {
		l.notify(change)
	}
	if known && before.UID != "" && before.Owner != seen.Owner {
		l.notify(Change{Owner: before.Owner, ID: id, Drift: true})
	}
}

// drifts reports whether an event tells of a change that a plan has to look at:
// to fields of ours, to the marks that steer us, or by another object that took
// the place of the one before. It is told once, not with every later event.
func drifts(before, seen Record) bool {
	switch {
	case before.UID == "" || seen.applying > 0:
		return false
	case before.UID != seen.UID || before.Marks != seen.Marks:
		return true
	default:
		return seen.base != 0 && seen.own != seen.base && seen.own != before.own
	}
}

// sawGone takes the disappearance of an object into the ledger, unless it was
// made anew since.
func (l *Ledger) sawGone(id object.ID, version uint64) {
	l.mu.Lock()
	r, known := l.records[id]
	if !known || r.Version > version {
		l.mu.Unlock()
		return
	}
	owner, there := r.Owner, r.UID != ""
	if r.applying > 0 {
		// The answer that is under way may be older or newer than this.
		*r = Record{applying: r.applying, Version: version}
	} else {
		delete(l.records, id)
	}
	if there && r.applying == 0 {
		l.attacked(id)
	}
	l.mu.Unlock()
	if there {
		l.notify(Change{Owner: owner, ID: id, Drift: true, Health: true})
	}
}
