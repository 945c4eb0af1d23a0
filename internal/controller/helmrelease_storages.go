package controller

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/release"
)

// storages are what there is of each cluster that releases are on: the watch of Helm's
// release storage, and what the cluster can do.
type storages struct {
	life   context.Context //nolint:containedctx // watches outlive the calls that start them
	notify func(types.NamespacedName)
	clock  clock.PassiveClock
	log    logr.Logger

	mu sync.Mutex
	of map[*station]*storage // guarded by mu
	at map[types.NamespacedName]*storage
}

// storage is that of one cluster.
type storage struct {
	watch *release.Watch
	users int // guarded by storages.mu

	reading sync.Mutex
	able    *helm.Capabilities // guarded by reading
	readAt  time.Time          // guarded by reading
	changes uint64             // guarded by reading; of the table of kinds, when it was read
}

func newStorages(ctx context.Context, notify func(types.NamespacedName), log logr.Logger) *storages {
	return &storages{
		life: ctx, notify: notify, clock: clock.RealClock{}, log: log,
		of: map[*station]*storage{}, at: map[types.NamespacedName]*storage{},
	}
}

// use returns the storage of the cluster, and notes that the unit uses this release there
// and no other any more.
func (s *storages) use(unit types.NamespacedName, on *station, key release.Key) *storage {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := s.of[on]
	if there == nil {
		there = &storage{watch: release.NewWatch(s.life, release.WatchOptions{
			Cluster: on.cluster, Notify: s.notify, Clock: s.clock, Log: s.log,
		})}
		s.of[on] = there
	}
	if before := s.at[unit]; before != there {
		s.leave(unit)
		s.at[unit] = there
		there.users++
	}
	there.watch.Use(unit, key)
	return there
}

// leave ends what a unit uses; the lock is held.
func (s *storages) leave(unit types.NamespacedName) {
	before := s.at[unit]
	if before == nil {
		return
	}
	before.watch.Leave(unit)
	delete(s.at, unit)
	if before.users--; before.users > 0 {
		return
	}
	for on, there := range s.of {
		if there == before && !on.hub {
			delete(s.of, on)
		}
	}
}

func (s *storages) forget(unit types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(unit)
}

// ableFor is how long it is believed what a cluster can do, unless something that changes
// it is seen.
const ableFor = 10 * time.Second

// capabilities returns what templates see of the cluster. They are asked for once for all
// releases that are rendered at a time.
func (s *storage) capabilities(ctx context.Context, c *kube.Cluster, now time.Time) (*helm.Capabilities, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	changes := c.Resources.Changes()
	if s.able != nil && changes == s.changes && now.Sub(s.readAt) < ableFor {
		return s.able, nil
	}
	served, err := c.Resources.Served(ctx)
	if err != nil {
		return nil, err
	}
	able, err := helm.NewCapabilities(served.Version, helm.APIVersions(served.Groups, served.Lists))
	if err != nil {
		return nil, err
	}
	s.able, s.readAt, s.changes = able, now, changes
	return able, nil
}

// lookupIn answers templates with the rights that the release is made with.
func lookupIn(c *kube.Cluster) helm.Lookup {
	return helm.ClusterLookup{
		Client: c.Dynamic,
		ResourceOf: func(ctx context.Context, gvk schema.GroupVersionKind) (schema.GroupVersionResource, bool, error) {
			found, err := c.Resources.Of(ctx, gvk)
			return found.GroupVersionResource, found.Namespaced, err
		},
	}
}
