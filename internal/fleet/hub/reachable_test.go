package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// watcher is sightings of one Lease, at a time of the test's own.
type watcher struct {
	*testing.T
	*sightings
	clock   *clocktesting.FakePassiveClock
	version int
	status  *metav1.Condition
	seen    *metav1.Time
	news    int
	// server is what the API server says when it is asked: the version that was seen, unless it is set.
	server func() (string, error)
}

var theLease = types.NamespacedName{Namespace: "fleet", Name: "a"}

func newWatcher(t *testing.T) *watcher {
	w := &watcher{T: t, clock: clocktesting.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	w.restart()
	return w
}

// restart has the hub forget what it saw.
func (w *watcher) restart() {
	w.sightings = newSightings(Options{Clock: w.clock}.withDefaults(), func(types.NamespacedName) { w.news++ }, func(context.Context, types.NamespacedName) (string, error) {
		if w.server != nil {
			return w.server()
		}
		return fmt.Sprint(w.version), nil
	})
	w.saw(w.lease())
}

func (w *watcher) lease() *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: theLease.Namespace, Name: theLease.Name, ResourceVersion: fmt.Sprint(w.version)}}
}

func (w *watcher) renew() {
	w.version++
	w.saw(w.lease())
}

func (w *watcher) pass(d time.Duration) {
	w.clock.SetTime(w.clock.Now().Add(d))
	w.sweep(w.Context())
}

// says checks what is said, and has the status say that.
func (w *watcher) says(want metav1.ConditionStatus, words ...string) {
	w.Helper()
	c, seen, _ := w.judge(theLease, w.status, w.seen)
	got := metav1.ConditionStatus("")
	if c != nil {
		got = c.Status
	}
	if got != want {
		w.Fatalf("it says %+v, want %q", c, want)
	}
	for _, word := range words {
		if !strings.Contains(c.Message, word) {
			w.Errorf("it says %q, want %q", c.Message, word)
		}
	}
	w.status = c
	if !seen.IsZero() {
		w.seen = &metav1.Time{Time: seen.Truncate(time.Minute)}
	}
}

func TestSightings(t *testing.T) {
	silent := errors.New("no answer")
	tests := []struct {
		name, reason string
		run          func(*watcher)
	}{
		{"first", "that a Lease is there says nothing yet", func(w *watcher) {
			w.says("")
			w.renew()
			w.says(metav1.ConditionTrue)
		}},
		{"never", "who never renews is told as such", func(w *watcher) {
			w.pass(time.Minute)
			w.says(metav1.ConditionFalse, "not renewed its Lease yet")
		}},
		{"lost", "a minute is the limit, and since when is when it was last renewed", func(w *watcher) {
			w.renew()
			w.pass(59 * time.Second)
			w.says(metav1.ConditionTrue)
			w.pass(time.Second)
			w.says(metav1.ConditionFalse, "since 2026-01-02T03:04:05Z")
		}},
		{"back", "one renewal is not enough, and does not change since when", func(w *watcher) {
			w.renew()
			w.pass(time.Minute)
			w.says(metav1.ConditionFalse)
			w.renew()
			w.says(metav1.ConditionFalse, "since 2026-01-02T03:04:05Z")
			w.pass(15 * time.Second)
			w.renew()
			w.says(metav1.ConditionTrue)
		}},
		{"flapping", "renewals that are far apart do not add up", func(w *watcher) {
			w.renew()
			w.pass(time.Minute)
			w.says(metav1.ConditionFalse)
			for range 5 {
				w.renew()
				w.pass(70 * time.Second)
				w.says(metav1.ConditionFalse, "since 2026-01-02T03:04:05Z")
			}
		}},
		{"blind", "what the hub could not see is not the member's fault", func(w *watcher) {
			w.renew()
			w.says(metav1.ConditionTrue)
			w.server = func() (string, error) { return "", silent }
			w.pass(10 * time.Minute)
			w.says(metav1.ConditionTrue)
			w.server = nil
			w.pass(59 * time.Second)
			w.says(metav1.ConditionTrue)
			w.pass(time.Second)
			w.says(metav1.ConditionFalse, "since 2026-01-02T03:04:05Z")
		}},
		{"late", "a watch that is behind is no loss", func(w *watcher) {
			w.renew()
			w.server = func() (string, error) { return "99", nil }
			w.pass(time.Minute)
			w.says(metav1.ConditionTrue)
		}},
		{"restart", "a hub that starts takes nobody for lost before the time is up, and knows about since when", func(w *watcher) {
			w.renew()
			w.says(metav1.ConditionTrue)
			w.clock.SetTime(w.clock.Now().Add(5 * time.Minute))
			w.restart()
			w.says(metav1.ConditionTrue)
			w.pass(time.Minute)
			w.says(metav1.ConditionFalse, "since about 2026-01-02T03:04:00Z")
		}},
		{"restart while lost", "what is lost stays so until it is back", func(w *watcher) {
			w.renew()
			w.pass(time.Minute)
			w.says(metav1.ConditionFalse)
			w.restart()
			w.says(metav1.ConditionFalse, "since 2026-01-02T03:04:05Z")
			w.renew()
			w.says(metav1.ConditionFalse)
			w.renew()
			w.says(metav1.ConditionTrue)
		}},
		{"rest", "renewals wake nobody but now and then", func(w *watcher) {
			w.renew()
			w.says(metav1.ConditionTrue)
			w.tell(theLease, w.seen.Time)
			w.news = 0
			for range 38 { // nine and a half minutes
				w.pass(15 * time.Second)
				w.renew()
			}
			if w.news != 0 {
				w.Errorf("it woke somebody %d times", w.news)
			}
			w.pass(30 * time.Second)
			w.renew()
			if w.news != 1 {
				w.Errorf("after ten minutes it woke somebody %d times", w.news)
			}
		}},
		{"gone", "without a Lease there is nothing to say", func(w *watcher) {
			w.drop(theLease)
			if _, _, there := w.judge(theLease, nil, nil); there {
				w.Error("it is there")
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Log(tt.reason)
			tt.run(newWatcher(t))
		})
	}
}

// The hub makes the Lease of a cluster that has joined, and its renewals cost no write.
func TestLease(t *testing.T) {
	t.Parallel()
	o := quick
	o.Lease = 3 * time.Second
	s := newStage(t, o)
	c := s.cluster("a", prod)
	s.assignment("a", "nothing", placements())
	s.must(s.Get(t.Context(), client.ObjectKeyFromObject(c), c))
	before := c.DeepCopy()
	c.Status.Incarnation = strings.Repeat("a", 32)
	s.must(s.Status().Patch(t.Context(), c, client.MergeFrom(before)))
	lease := &coordinationv1.Lease{ObjectMeta: s.meta("a")}
	s.eventually("a Lease", func() (bool, string) {
		err := s.Get(t.Context(), client.ObjectKeyFromObject(lease), lease)
		return err == nil, fmt.Sprint(err)
	})
	renew := func() {
		s.must(s.Patch(t.Context(), lease, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, metav1.NowMicro().UTC().Format("2006-01-02T15:04:05.000000Z")))))
	}
	renew()
	says(s, c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
	if c.Status.LastSeen == nil || c.Status.LastSeen.Second() != 0 {
		t.Errorf("it was last seen at %v", c.Status.LastSeen)
	}
	settled(s)
	s.asked.reset()
	for range 20 {
		renew()
	}
	says(s, c, v1alpha1.ReachableCondition, metav1.ConditionFalse, v1alpha1.LeaseExpiredReason, "since "+time.Now().UTC().Format("2006-01"))
	var writes []string
	for what, n := range s.asked.reset() {
		if !strings.HasPrefix(what, "GET ") {
			writes = append(writes, fmt.Sprint(what, " ", n))
		}
	}
	if want := []string{"PATCH " + s.namespace + "/fleetclusters/a/status 1"}; !slices.Equal(writes, want) {
		t.Errorf("20 renewals and a loss were %q", writes)
	}
	s.must(s.Delete(t.Context(), lease))
	s.eventually("another Lease", func() (bool, string) {
		again := &coordinationv1.Lease{}
		err := s.Get(t.Context(), client.ObjectKeyFromObject(lease), again)
		return err == nil && again.UID != lease.UID, fmt.Sprint(err)
	})
}
