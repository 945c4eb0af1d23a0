package observe

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

var (
	thing = object.ID{Kind: "ConfigMap", Namespace: "apps", Name: "thing"}
	ours  = types.NamespacedName{Namespace: "apps", Name: "unit"}
	other = types.NamespacedName{Namespace: "apps", Name: "other"}
)

// bench is a ledger without a cluster, to be told events in any order.
type bench struct {
	*Ledger
	clock   *clocktesting.FakePassiveClock
	changes []Change
}

func newBench() *bench {
	b := &bench{clock: clocktesting.NewFakePassiveClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))}
	b.Ledger = NewLedger(context.Background(), Options{Manager: testManager, Clock: b.clock, Log: logr.Discard(),
		Notify: func(c Change) { b.changes = append(b.changes, c) }})
	b.Want(ours, []plan.Want{{ID: thing}})
	return b
}

// told returns the units that were told of drift, and forgets them.
func (b *bench) told() []types.NamespacedName {
	var units []types.NamespacedName
	for _, c := range b.changes {
		if c.Drift {
			units = append(units, c.Owner)
		}
	}
	b.changes = nil
	return units
}

// at is the object at a version with our field set; "" is none.
func at(uid, version, fields string) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		UID: types.UID(uid), ResourceVersion: version, Namespace: thing.Namespace, Name: thing.Name,
		Labels:      map[string]string{object.KustomizeGroup + "/name": ours.Name, object.KustomizeGroup + "/namespace": ours.Namespace},
		Annotations: map[string]string{object.AppliedDigestAnnotation: "d"},
	}}
	if fields != "" {
		m.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: testManager, Operation: metav1.ManagedFieldsOperationApply,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}}
	}
	return m
}

const (
	all  = `{"f:data":{"f:a":{},"f:b":{}}}`
	some = `{"f:data":{"f:a":{}}}`
)

func (b *bench) event(uid, version, fields string) {
	b.saw(thing, b.reduceMeta(thing, at(uid, version, fields)))
}

func (b *bench) answer(uid, version, fields string) { b.Applied(thing, "d", at(uid, version, fields)) }

func TestEventsAndAnswersInAnyOrder(t *testing.T) {
	applied := func(b *bench) { b.Applying(thing); b.answer("u", "10", all); b.event("u", "10", all) }
	cases := []struct {
		name, reason string
		do           func(*bench)
		known        bool
		state        plan.State
		drift        int
	}{
		{"answer first", "the usual order", applied, true, plan.InSync, 0},
		{"event first", "the watch may be faster than the answer",
			func(b *bench) { b.Applying(thing); b.event("u", "10", all); b.answer("u", "10", all) }, true, plan.InSync, 0},
		{"edit after", "a field of ours is gone from our set",
			func(b *bench) { applied(b); b.event("u", "11", some) }, true, plan.Drifted, 1},
		{"edit told once", "later events of a drifted object are no news",
			func(b *bench) { applied(b); b.event("u", "11", some); b.event("u", "12", some) }, true, plan.Drifted, 1},
		{"second edit", "another field of ours was taken",
			func(b *bench) { applied(b); b.event("u", "11", some); b.event("u", "12", `{"f:x":{}}`) }, true, plan.Drifted, 2},
		{"edit before the answer", "somebody was faster than the answer to our apply",
			func(b *bench) {
				b.Applying(thing)
				b.event("u", "10", all)
				b.event("u", "11", some)
				b.answer("u", "10", all)
			}, true, plan.Drifted, 1},
		{"edit undone by the apply", "events during an apply are no drift until the answer",
			func(b *bench) {
				applied(b)
				b.Applying(thing)
				b.event("u", "11", some)
				b.event("u", "12", all)
				b.answer("u", "12", all)
			}, true, plan.InSync, 0},
		{"old event after the answer", "it is older than what we know",
			func(b *bench) { applied(b); b.Applying(thing); b.answer("u", "13", all); b.event("u", "12", some) }, true, plan.InSync, 0},
		{"apply that changed nothing", "version and field set stay",
			func(b *bench) { applied(b); b.Applying(thing); b.answer("u", "10", all) }, true, plan.InSync, 0},
		{"deleted before the answer", "the answer is older than the deletion",
			func(b *bench) {
				b.Applying(thing)
				b.event("u", "10", all)
				b.sawGone(thing, 11)
				b.answer("u", "10", all)
			}, false, 0, 2},
		{"deleted unseen before the answer", "a relist shows neither the object nor its end",
			func(b *bench) { b.Applying(thing); b.sawGone(thing, 11); b.answer("u", "10", all) }, false, 0, 1},
		{"relisted before it was made", "the list is older than the object",
			func(b *bench) { b.Applying(thing); b.sawGone(thing, 9); b.answer("u", "10", all) }, true, plan.InSync, 0},
		{"replaced before the answer", "another object has the name by now, and is not what we applied",
			func(b *bench) {
				b.Applying(thing)
				b.event("u", "10", all)
				b.sawGone(thing, 11)
				b.event("v", "12", all)
				b.answer("u", "10", all)
			}, true, plan.Unproven, 2},
		{"deleted", "somebody removed it", func(b *bench) { applied(b); b.sawGone(thing, 11) }, false, 0, 1},
		{"late end of an earlier object", "it was made anew since",
			func(b *bench) { applied(b); b.sawGone(thing, 9) }, true, plan.InSync, 0},
		{"replaced unseen", "a relist shows another object of the name",
			func(b *bench) { applied(b); b.event("v", "12", all) }, true, plan.Unproven, 1},
		{"apply failed", "nothing stands behind the record", func(b *bench) { b.Applying(thing); b.NotApplied(thing) }, false, 0, 0},
		{"apply failed on a known object", "the record stays",
			func(b *bench) { applied(b); b.Applying(thing); b.NotApplied(thing) }, true, plan.InSync, 0},
		{"no managed fields", "the server keeps none for this kind",
			func(b *bench) { b.Applying(thing); b.answer("u", "10", ""); b.event("u", "11", "") }, true, plan.Unowned, 0},
		{"doubted", "an audit found the ledger wrong", func(b *bench) { applied(b); b.Doubt(thing) }, true, plan.Drifted, 0},
		{"never applied by us", "an earlier process did", func(b *bench) { b.event("u", "10", all) }, true, plan.Unproven, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench()
			c.do(b)
			known, ok := b.Known(thing)
			if ok != c.known || ok && known.State != c.state {
				t.Errorf("known %v in state %v, want %v in state %v: %s", ok, known.State, c.known, c.state, c.reason)
			}
			if told := b.told(); len(told) != c.drift {
				t.Errorf("drift was told %d times, want %d: %s", len(told), c.drift, c.reason)
			}
			if !c.known && b.Len() != 0 {
				t.Error("a record stays with no object behind it")
			}
		})
	}
}

func TestOwnerChangeWakesTheOwnerThatLost(t *testing.T) {
	b := newBench()
	b.Applying(thing)
	b.answer("u", "10", all)
	stolen := at("u", "11", some)
	stolen.Labels[object.KustomizeGroup+"/name"] = other.Name
	b.saw(thing, b.reduceMeta(thing, stolen))
	told := b.told()
	if len(told) != 2 || told[0] != other || told[1] != ours {
		t.Errorf("told %v, want both the unit that the labels name now and the one that they named", told)
	}
}

func TestFight(t *testing.T) {
	b := newBench()
	b.Applying(thing)
	b.answer("u", "1", all)
	version := 1
	next := func() string { version++; return strconv.Itoa(version) }
	round := func(attack func()) {
		attack()
		b.Applying(thing)
		b.answer("u", next(), all)
	}
	edited := func() { b.event("u", next(), some) }
	for i := range fightFreeRounds {
		if wait := b.HealAfter(thing); wait != 0 {
			t.Fatalf("round %d waits %s: the first healings are at once", i, wait)
		}
		round(edited)
	}
	want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}
	for i, w := range want {
		if got := b.HealAfter(thing); got != w || b.HealAfter(thing) != w {
			t.Fatalf("contested round %d waits %s, want %s; asking must not count", i, got, w)
		}
		b.clock.SetTime(b.clock.Now().Add(w))
		if got := b.HealAfter(thing); got != 0 {
			t.Fatalf("contested round %d still waits %s after its pause", i, got)
		}
		round(edited)
	}
	b.clock.SetTime(b.clock.Now().Add(fightForgotten + time.Second))
	if got := b.HealAfter(thing); got != 0 {
		t.Errorf("after a quiet time it still waits %s", got)
	}
	round(edited)
	if got := b.HealAfter(thing); got != 0 {
		t.Errorf("after a quiet time one edit makes the next wait %s", got)
	}
}

func TestFightCountsDeletionsAndNotCommits(t *testing.T) {
	b := newBench()
	version := 0
	next := func() string { version++; return strconv.Itoa(version) }
	for range 2 * fightFreeRounds {
		b.Applying(thing)
		b.answer("u", next(), all) // commits: nobody attacked
	}
	if wait := b.HealAfter(thing); wait != 0 {
		t.Errorf("many commits make a healing wait %s", wait)
	}
	for range fightFreeRounds {
		version++
		b.sawGone(thing, uint64(version))
		b.Applying(thing)
		b.answer("u", next(), all)
	}
	if wait := b.HealAfter(thing); wait != fightFirstPause {
		t.Errorf("an object that is deleted again and again waits %s, want %s", wait, fightFirstPause)
	}
	b.Want(ours, nil)
	if wait := b.HealAfter(thing); wait != 0 {
		t.Errorf("an object that nobody wants is remembered as contested: %s", wait)
	}
}

func TestClaims(t *testing.T) {
	wants := []plan.Want{{ID: thing}}
	cases := []struct {
		name, reason string
		do           func(*bench)
		claimant     types.NamespacedName
		claimed      bool
		byOther      bool // wanted by a unit other than ours
		wakes        int
	}{
		{"one unit", "it is its own", func(*bench) {}, ours, true, false, 0},
		{"first come", "the first that wanted it keeps it", func(b *bench) { b.Want(other, wants) }, ours, true, true, 0},
		{"owner counts more than order", "who delivers it now keeps it while it wants to", func(b *bench) {
			b.Want(other, wants)
			theirs := at("u", "1", all)
			theirs.Labels[object.KustomizeGroup+"/name"] = other.Name
			b.saw(thing, b.reduceMeta(thing, theirs))
		}, other, true, true, 0},
		{"given up", "the other gets it, and is woken", func(b *bench) { b.Want(other, wants); b.Want(ours, nil) }, other, true, true, 1},
		{"given up by all", "nobody claims it", func(b *bench) { b.Want(ours, nil) }, types.NamespacedName{}, false, false, 0},
		{"claimed at the start", "an inventory counts as wanting", func(b *bench) {
			b.Want(ours, nil)
			b.Claim(other, []object.ID{thing}, false)
			b.Want(ours, wants)
		}, other, true, true, 0},
		{"claimed at the start without proof", "anybody may have written the inventory", func(b *bench) {
			b.Want(ours, nil)
			b.Claim(other, []object.ID{thing}, true)
			b.Want(ours, wants)
		}, ours, true, false, 0},
		{"claimed at the start and proven", "the labels agree with the inventory", func(b *bench) {
			b.Claim(other, []object.ID{thing}, true)
			theirs := at("u", "1", all)
			theirs.Labels[object.KustomizeGroup+"/name"] = other.Name
			b.saw(thing, b.reduceMeta(thing, theirs))
		}, other, true, true, 0},
		{"built meanwhile", "what it wants is known then", func(b *bench) {
			b.Want(ours, nil)
			b.Claim(other, []object.ID{thing}, true)
			b.Want(other, wants)
			b.Want(ours, wants)
		}, other, true, true, 0},
		{"expected", "whose it will be is known before that one is built", func(b *bench) {
			b.Expect(map[object.ID]types.NamespacedName{thing: other})
		}, ours, true, true, 0},
		{"expected of itself", "it stays where it is", func(b *bench) {
			b.Expect(map[object.ID]types.NamespacedName{thing: ours})
		}, ours, true, false, 0},
		{"expected no more", "the newest word counts", func(b *bench) {
			b.Expect(map[object.ID]types.NamespacedName{thing: other})
			b.Expect(nil)
		}, ours, true, false, 0},
		{"expected of who yields", "a tenant's unit gets nothing from the platform's", func(b *bench) {
			b.yields = func(u types.NamespacedName) bool { return u == other }
			b.Expect(map[object.ID]types.NamespacedName{thing: other})
		}, ours, true, false, 0},
		{"other yields", "a tenant's unit stands back for the platform's", func(b *bench) {
			b.yields = func(u types.NamespacedName) bool { return u == other }
			b.Want(ours, nil)
			b.Want(other, wants)
			b.Want(ours, wants)
		}, ours, true, false, 0},
		{"both yield", "then the first has it", func(b *bench) {
			b.yields = func(types.NamespacedName) bool { return true }
			b.Want(other, wants)
		}, ours, true, true, 0},
		{"content", "who only wants it to be there leaves it to who wants it so", func(b *bench) {
			b.Want(ours, []plan.Want{{ID: thing, Mode: plan.IfNotPresent}})
			b.event("u", "1", all)
			b.Want(other, wants)
		}, other, true, true, 0},
		{"content from now on", "who waited for it is told", func(b *bench) {
			b.Claim(ours, []object.ID{thing}, false)
			b.Want(other, wants)
			b.Want(ours, []plan.Want{{ID: thing, Mode: plan.IfNotPresent}})
		}, other, true, true, 1},
		{"content alone", "nobody wants more of it", func(b *bench) {
			b.Want(ours, []plan.Want{{ID: thing, Mode: plan.IfNotPresent}})
		}, ours, true, false, 0},
		{"owner that wants it no more", "labels alone are no claim", func(b *bench) {
			b.event("u", "1", all)
			b.Want(ours, nil)
			b.Want(other, wants)
		}, other, true, true, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench()
			c.do(b)
			claimant, ok := b.Claimant(thing)
			if claimant != c.claimant || ok != c.claimed {
				t.Errorf("claimed by %v (%v), want %v (%v): %s", claimant, ok, c.claimant, c.claimed, c.reason)
			}
			if got := b.WantedByOther(thing, ours); got != c.byOther {
				t.Errorf("wanted by another: %v, want %v: %s", got, c.byOther, c.reason)
			}
			if told := b.told(); len(told) != c.wakes {
				t.Errorf("woke %v, want %d units: %s", told, c.wakes, c.reason)
			}
		})
	}
}

func TestContender(t *testing.T) {
	when := func(s int64) *metav1.Time { return &metav1.Time{Time: time.Unix(s, 0)} }
	cases := []struct {
		name, reason string
		entries      []metav1.ManagedFieldsEntry
		want         string
	}{
		{"nobody", "we alone wrote", []metav1.ManagedFieldsEntry{{Manager: testManager, Time: when(9)}}, ""},
		{"the last", "it is who most likely made the change",
			[]metav1.ManagedFieldsEntry{{Manager: "kubectl-edit", Time: when(5)}, {Manager: "operator", Time: when(7)}, {Manager: "old", Time: when(1)}}, "operator"},
		{"scale", "a subresource changes fields of ours too",
			[]metav1.ManagedFieldsEntry{{Manager: "kubectl", Subresource: "scale", Time: when(5)}}, "kubectl"},
		{"status", "whoever reports the status is no contender",
			[]metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager", Subresource: "status", Time: when(5)}}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := contender(c.entries, testManager); got != c.want {
				t.Errorf("got %q, want %q: %s", got, c.want, c.reason)
			}
		})
	}
}
