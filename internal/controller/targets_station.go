package controller

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
)

// station is one cluster that units are delivered to: what is known of it is shared
// by all links that lead there. See docs/design/remote.md for who shares one.
type station struct {
	targets *targets
	key     stationKey
	hub     bool
	// cluster is what the ledger watches with: the credentials of one of the links.
	cluster *kube.Cluster
	ledger  *observe.Ledger
	// slots bounds the requests under way that change objects.
	slots chan struct{}
	via   *kube.Switch
	stop  context.CancelFunc
	links []*link // guarded by targets.mu; the first open one's credentials keep the ledger
}

// stationKey tells clusters apart. Tenants share none with another namespace: what a
// ledger tells, it saw with somebody's credentials.
type stationKey struct {
	// tenant is the namespace of a tenant, and empty for all others.
	tenant string
	// identity is the cluster's own.
	identity string
}

// join returns the station of the cluster, which the link uses from now on. The lock
// is held.
func (t *targets) join(l *link, identity string, host string) (*station, error) {
	key := stationKey{identity: identity}
	if t.tenancy.Confined(l.key.namespace) {
		key.tenant = l.key.namespace
	}
	s := t.stations[key]
	if s == nil {
		s = &station{targets: t, key: key, via: &kube.Switch{}, slots: make(chan struct{}, t.remote.requests)}
		var err error
		if s.cluster, err = kube.Over(host, s.via, nil); err != nil {
			return nil, err
		}
		life, stop := context.WithCancel(t.remote.life)
		s.stop = stop
		s.ledger = observe.NewLedger(life, observe.Options{
			Cluster: s.cluster, Manager: t.manager, Group: t.group, Clock: clock.RealClock{}, Log: t.remote.log, Notify: s.notify,
			Yields: func(unit types.NamespacedName) bool { return t.tenancy.Confined(unit.Namespace) },
			Beside: s.wantedBeside,
		})
		t.stations[key] = s
	}
	s.links = append(s.links, l)
	s.speak()
	return s, nil
}

// speak makes the ledger watch with the credentials of the first link that is open.
// The lock is held.
func (s *station) speak() {
	if s.hub || len(s.links) == 0 {
		return
	}
	speaker := s.links[0]
	if i := slices.IndexFunc(s.links, func(l *link) bool { return l.err == nil }); i > 0 {
		speaker = s.links[i]
	}
	s.via.Set(speaker.remote.Only(s.identityOf()))
}

// is reports whether the station is the cluster with this identity.
func (s *station) is(identity string, hub bool) bool {
	return s.hub == hub && (hub || s.key.identity == identity)
}

// identityOf returns the identity of the cluster, for logs.
func (s *station) identityOf() string {
	if s.hub {
		return "the engine's own"
	}
	return s.key.identity
}

// leave ends the use of a station by a link. The ledger ends with the last one. The
// lock is held.
func (s *station) leave(l *link) {
	if s.hub {
		return
	}
	s.links = slices.DeleteFunc(s.links, func(other *link) bool { return other == l })
	if len(s.links) > 0 {
		s.speak()
		return
	}
	s.via.Set(nil)
	s.stop()
	delete(s.targets.stations, s.key)
}

// notify takes what the ledger saw to the unit that it concerns. Labels on another
// cluster may say anything: only units that belong there are woken.
func (s *station) notify(c observe.Change) {
	s.targets.mu.Lock()
	here := s.targets.places[c.Owner].station == s
	s.targets.mu.Unlock()
	if here {
		s.targets.saw(c)
	}
}

// claim enters what an inventory holds as wanted. That of a unit which acts with less
// than the engine's rights may have been written by whoever may write its status.
func (s *station) claim(a address) {
	proven := s.targets.tenancy.accountOf(a).Name != "" || s.hub && a.kubeConfig != nil
	s.ledger.Claim(a.unit, a.inventory(), proven)
}

// forget drops what is remembered of a unit that is gone, or delivered elsewhere.
func (s *station) forget(ctx context.Context, unit types.NamespacedName) {
	s.ledger.Want(unit, nil)
	_ = s.ledger.Follow(ctx, unit, nil) // following nothing asks nobody
	_ = s.ledger.Judge(ctx, unit, nil)  // what it leaves behind is nobody's matter
}

// target returns how the station is delivered to through a connection of its own.
func (s *station) target(host string, remote *kube.Remote) (pipeline.Target, error) {
	cluster, err := kube.Over(host, remote.Only(s.identityOf()), s.cluster.Resources)
	if err != nil {
		return pipeline.Target{}, err
	}
	applier := *s.targets.hub.Applier
	applier.Cluster, applier.Journal, applier.Observe = cluster, s.ledger, s.ledger
	applier.Slots, applier.Count = s.slots, s.targets.remote.count
	return pipeline.Target{Cluster: cluster, Ledger: s.ledger, Applier: &applier}, nil
}
