package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// sightings is when the hub saw the Lease of each member change, by its own clock. What time a Lease names is not
// looked at. It is lost with the process: a member is then taken for lost a whole period later.
type sightings struct {
	clock clock.PassiveClock
	// lease is Options.Lease, and seen is Options.Seen.
	lease, seen time.Duration
	// news is told of a cluster whose status may have to say something else.
	news func(types.NamespacedName)
	// ask reads the version of a Lease from the API server.
	ask func(context.Context, types.NamespacedName) (string, error)

	mu  sync.Mutex
	all map[types.NamespacedName]*sighting // guarded by mu
}

// sighting is what is known of one Lease.
type sighting struct {
	version string
	// at is when it was last seen to change, or when it was first seen.
	at time.Time
	// blind is until when the hub could not see whether it changes.
	blind time.Time
	// changes counts what was seen since it was first seen, or since the member was lost.
	changes int
	// moved: it was seen to change at all.
	moved bool
	// lost: the member was taken for lost, and has not been back for long enough.
	lost bool
	// taken: what the status said before is taken into account. known: it has been told whether there is anybody.
	taken, known bool
	// told is what the status says of when it was last seen.
	told time.Time
}

// enough is after how many renewals a member that was lost is back: one that flaps is told once.
const enough = 2

func newSightings(o Options, news func(types.NamespacedName), ask func(context.Context, types.NamespacedName) (string, error)) *sightings {
	return &sightings{clock: o.Clock, lease: o.Lease, seen: o.Seen, news: news, ask: ask, all: map[types.NamespacedName]*sighting{}}
}

// saw takes a Lease as it is now.
func (s *sightings) saw(lease metav1.Object) {
	key := types.NamespacedName{Namespace: lease.GetNamespace(), Name: lease.GetName()}
	now := s.clock.Now()
	s.mu.Lock()
	v := s.all[key]
	news := v == nil
	if v == nil {
		v = &sighting{version: lease.GetResourceVersion(), at: now}
		s.all[key] = v
	}
	if v.version != lease.GetResourceVersion() {
		was := *v
		if v.lost && v.left(now, s.lease) <= 0 {
			v.changes = 0 // the one before was long ago
		}
		v.version, v.at, v.moved = lease.GetResourceVersion(), now, true
		v.changes++
		if v.lost && v.changes >= enough {
			v.lost = false
		}
		news = was.lost != v.lost || !was.known || now.Sub(v.told) >= s.seen
	}
	s.mu.Unlock()
	if news {
		s.news(key)
	}
}

// expire takes the member for lost where that is due, and begins to count anew where it is lost already.
func (v *sighting) expire(now time.Time, lease time.Duration) {
	if v.left(now, lease) <= 0 {
		v.lost, v.changes = true, 0
	}
}

// left is how long the member may be silent yet.
func (v *sighting) left(now time.Time, lease time.Duration) time.Duration {
	heard := v.at
	if v.blind.After(heard) {
		heard = v.blind
	}
	return lease - now.Sub(heard)
}

func (s *sightings) drop(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, key)
}

// sweep finds out who is lost, tells, and returns when to look again. Time in which the hub cannot read Leases does not
// count: the last word is asked for before anybody is taken for lost.
func (s *sightings) sweep(ctx context.Context) time.Duration {
	due, next := s.due()
	for _, key := range due {
		version, err := s.ask(ctx, key)
		if client.IgnoreNotFound(err) != nil {
			s.blind()
			return s.lease
		}
		s.mu.Lock()
		v := s.all[key]
		lost := v != nil && (err != nil || v.version == version)
		if lost {
			v.expire(s.clock.Now(), s.lease)
		}
		s.mu.Unlock()
		if lost {
			s.news(key)
		}
	}
	return next
}

// due returns who has not been heard of for long enough to be lost, and when that may be so of the next.
func (s *sightings) due() (due []types.NamespacedName, next time.Duration) {
	now := s.clock.Now()
	next = s.lease
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, v := range s.all {
		left := v.left(now, s.lease)
		switch {
		case v.lost:
		case left <= 0:
			due = append(due, key)
		default:
			next = min(next, left)
		}
	}
	return due, next
}

// blind has everybody who is not lost be heard of now: nothing could be seen of them.
func (s *sightings) blind() {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.all {
		if !v.lost {
			v.blind = now
		}
	}
}

// Start implements manager.Runnable.
func (s *sightings) Start(ctx context.Context) error {
	for {
		t := time.NewTimer(max(s.sweep(ctx), time.Millisecond))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// judge returns what to say of a member, which is nothing as long as nobody has been heard of and the time is not up. The
// Lease is there or it is not; seen is when it last changed, zero where that was not seen.
func (s *sightings) judge(key types.NamespacedName, before *metav1.Condition, lastSeen *metav1.Time) (c *metav1.Condition, seen time.Time, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.all[key]
	if v == nil {
		return nil, time.Time{}, false
	}
	if !v.taken {
		v.taken = true
		v.known = before != nil && before.Status == metav1.ConditionTrue
		if before != nil && before.Status == metav1.ConditionFalse && v.changes < enough {
			v.lost = true
		}
		if lastSeen != nil {
			v.told = lastSeen.Time
		}
	}
	if v.moved {
		seen = v.at
	}
	switch {
	case v.lost && before != nil && before.Status == metav1.ConditionFalse:
		return before, seen, true // since when does not change by a renewal that was not enough
	case v.lost:
		v.known = true
		return v.gone(lastSeen), seen, true
	case v.moved || v.known:
		v.known = true
		return &metav1.Condition{Type: v1alpha1.ReachableCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.LeaseRenewedReason, Message: "its agent renews its Lease"}, seen, true
	}
	return nil, time.Time{}, true
}

// gone says since when nobody has been heard of: since the last change that was seen, by whichever process of the hub.
func (v *sighting) gone(lastSeen *metav1.Time) *metav1.Condition {
	message := "its agent has not renewed its Lease yet"
	switch {
	case v.moved:
		message = "its agent has not renewed its Lease since " + v.at.UTC().Format(time.RFC3339)
	case lastSeen != nil:
		message = "its agent has not renewed its Lease since about " + lastSeen.UTC().Format(time.RFC3339)
	}
	return &metav1.Condition{Type: v1alpha1.ReachableCondition, Status: metav1.ConditionFalse, Reason: v1alpha1.LeaseExpiredReason, Message: message}
}

// tell remembers what the status says.
func (s *sightings) tell(key types.NamespacedName, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.all[key]; v != nil {
		v.told = at
	}
}

// reachable sets on a FleetCluster whether its agent is heard of, and when it last was: to the minute, and not at every
// minute. A cluster that has not joined has nobody to be heard of.
func (r *reporter) reachable(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	if cluster.Status.Incarnation == "" {
		return nil
	}
	key := client.ObjectKeyFromObject(cluster)
	before := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.ReachableCondition)
	c, seen, there := r.sightings.judge(key, before, cluster.Status.LastSeen)
	if !there && cluster.DeletionTimestamp.IsZero() {
		return r.makeLease(ctx, cluster)
	}
	news := c != nil && (before == nil || before.Status != c.Status)
	if c != nil && c != before && c.Status == metav1.ConditionFalse {
		c.Message += silent(cluster)
	}
	if c != nil {
		set(cluster, *c)
	}
	if last := cluster.Status.LastSeen; !seen.IsZero() && (news || last == nil || seen.Sub(last.Time) >= r.Seen) {
		at := metav1.NewTime(seen.Truncate(time.Minute))
		cluster.Status.LastSeen = &at
		r.sightings.tell(key, at.Time)
	}
	return nil
}

// silent says where to look when a member is not heard of.
func silent(cluster *v1alpha1.FleetCluster) string {
	if cluster.Spec.Agent.Mode == v1alpha1.AgentPush {
		return "; its engine runs in the hub: look whether the API server of the cluster answers"
	}
	return "; look at the Deployment bowline-system/bowline-agent of the cluster, and whether it reaches the hub"
}

// makeLease makes the Lease of a member, which may renew it and not make it. One that is there without our labels gets them.
func (r *reporter) makeLease(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	key := client.ObjectKeyFromObject(cluster)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name, Labels: join.LeaseLabels(key),
		OwnerReferences: []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.FleetClusterKind, Name: cluster.Name, UID: cluster.UID}},
	}}
	err := r.client.Create(ctx, lease, owner)
	if apierrors.IsAlreadyExists(err) {
		there := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		err = r.client.Patch(ctx, there, client.RawPatch(types.MergePatchType, labelPatch(lease.Labels)), owner)
	}
	if err != nil {
		return fmt.Errorf("make the Lease of FleetCluster %s: %w", key, err)
	}
	return nil // and its event brings the cluster back
}

// watchLeases takes note of all Leases of members, and of no others: those of nodes are many.
func (h *hub) watchLeases(mgr ctrl.Manager) error {
	leases, err := cache.New(mgr.GetConfig(), cache.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
		DefaultLabelSelector: labels.SelectorFromSet(join.LeaseSelector()), DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return err
	}
	if err := mgr.Add(leases); err != nil {
		return err
	}
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		kind := &metav1.PartialObjectMetadata{}
		kind.SetGroupVersionKind(coordinationv1.SchemeGroupVersion.WithKind("Lease"))
		informer, err := leases.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch Leases: %w", err)
		}
		saw := func(o any) {
			if lease, ok := o.(metav1.Object); ok {
				h.sightings.saw(lease)
			}
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: saw, UpdateFunc: func(_, o any) { saw(o) }, DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if lease, ok := o.(metav1.Object); ok {
				key := types.NamespacedName{Namespace: lease.GetNamespace(), Name: lease.GetName()}
				h.sightings.drop(key)
				h.clusters.Add(key)
			}
		}})
		if err != nil {
			return fmt.Errorf("watch Leases: %w", err)
		}
		return h.sightings.Start(ctx)
	}))
}

func labelPatch(all map[string]string) []byte {
	raw, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": all}}) //nolint:errchkjson // strings
	return raw
}

// askWith reads versions of Leases from the API server, which has some seconds to answer.
func askWith(reader client.Reader) func(context.Context, types.NamespacedName) (string, error) {
	return func(ctx context.Context, key types.NamespacedName) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		lease := &metav1.PartialObjectMetadata{}
		lease.SetGroupVersionKind(coordinationv1.SchemeGroupVersion.WithKind("Lease"))
		err := reader.Get(ctx, key, lease)
		return lease.ResourceVersion, err
	}
}
