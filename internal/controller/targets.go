package controller

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
)

// delivery is where a unit is delivered to, and in whose name. Reads and writes of
// the target are made with those rights; what the ledger sees, it sees with those of
// whoever keeps it.
type delivery struct {
	pipeline.Target
	ledger *observe.Ledger
	// account is the service account in whose name the unit is delivered; the zero
	// value means the rights of the access itself.
	account types.NamespacedName
	// rights are those of the account; nil where others need no guarding from it.
	rights  *rights
	explain explainer
	access  *access
}

// access is a way to a cluster with one set of credentials: the engine's own to the
// hub, or those of a kubeconfig. All accounts that are impersonated share it.
type access struct {
	*delivery
	station *station
	link    *link // nil: the engine's own
	found   accountsFound

	mu       sync.Mutex
	accounts map[types.NamespacedName]*delivery // guarded by mu
}

func newAccess(d *delivery, s *station, l *link) *access {
	a := &access{delivery: d, station: s, link: l, found: newAccountsFound(), accounts: map[types.NamespacedName]*delivery{}}
	d.access = a
	return a
}

// targets knows where each unit is delivered to.
type targets struct {
	targetOptions
	hub *access
	// beside are those of the other kind of unit; nil where the cluster lacks it.
	beside *targets
	// bulkhead keeps clusters that are slow to answer from taking all workers.
	bulkhead *bulkhead

	mu       sync.Mutex
	places   map[types.NamespacedName]place // guarded by mu; where each unit was last found to belong
	links    map[linkKey]*link              // guarded by mu
	stations map[stationKey]*station        // guarded by mu; all but the hub
}

// targetOptions is what targets is made from.
type targetOptions struct {
	tenancy    Tenancy
	scheme     *runtime.Scheme
	mapper     meta.RESTMapper // of the hub
	clock      clock.PassiveClock
	references *references
	remote     remoteOptions
	// units lists the addresses of all units.
	units func(context.Context) ([]address, error)
	// manager is the field manager that applies, and group the one that units label
	// their objects with.
	manager, group string
	// wake brings a unit back at once; retry says that what it failed for is over.
	wake func(unit types.NamespacedName, retry bool)
	// saw takes what a ledger saw to the unit that it concerns.
	saw func(observe.Change)
	// left is told of a unit that is delivered to another cluster from now on.
	left func(unit types.NamespacedName)
	// moved tells the people of a unit that it is delivered to another cluster.
	moved func(address)
}

// place is where a unit belongs.
type place struct {
	link    *link // nil: the hub, by the engine's own access
	account types.NamespacedName
	// station is the cluster that it was last delivered to; nil before.
	station *station
}

func newTargets(ctx context.Context, hub *delivery, o targetOptions) *targets {
	t := &targets{
		targetOptions: o, bulkhead: newBulkhead(o.remote.workers, o.wake),
		places: map[types.NamespacedName]place{}, links: map[linkKey]*link{}, stations: map[stationKey]*station{},
	}
	t.remote.life = ctx //nolint:fatcontext // links outlive the calls that make them
	s := &station{targets: t, hub: true, cluster: hub.Cluster, ledger: hub.ledger, slots: hub.Applier.Slots}
	t.hub = newAccess(hub, s, nil)
	return t
}

// of returns where the unit is delivered to. It sends no request: a cluster
// that is not reached yet is an error that wraps errConnecting, and the unit is woken
// once that is over.
func (t *targets) of(ctx context.Context, to address) (*delivery, error) {
	account := t.tenancy.accountOf(to)
	if to.kubeConfig == nil {
		t.move(ctx, to, place{account: account, station: t.hub.station})
		return t.hub.as(account, t.scheme, t.mapper)
	}
	l, err := t.linkOf(to, account) //nolint:contextcheck // it outlives the call
	if err != nil {
		return nil, err
	}
	a, err := l.enterable(to.unit)
	if err != nil {
		return nil, err
	}
	t.move(ctx, to, place{link: l, account: account, station: a.station})
	mapper := t.mapper
	if !a.station.hub {
		mapper = nil
	}
	return a.as(account, t.scheme, mapper)
}

// move notes where the unit belongs from now on, and lets go of what nobody uses any
// more.
func (t *targets) move(ctx context.Context, a address, to place) {
	t.mu.Lock()
	from := t.settle(a.unit, to)
	t.mu.Unlock()
	if from.station != nil && from.station != to.station {
		from.station.forget(ctx, a.unit)
		t.left(a.unit)
		t.moved(a)
	}
}

// settle notes where the unit belongs, and returns where it did. A place without a
// station leaves the last one as it is. The lock is held.
func (t *targets) settle(unit types.NamespacedName, to place) (from place) {
	from, known := t.places[unit]
	if to.station == nil {
		to.station = from.station
	}
	t.places[unit] = to
	if known && from != to {
		t.release(from)
	}
	return from
}

// at returns where the unit was last delivered to, and takes it nowhere: for
// those who look without its worker. ok is false while it is on its way.
func (t *targets) at(to address) (d *delivery, ok bool) {
	account := t.tenancy.accountOf(to)
	t.mu.Lock()
	p, known := t.places[to.unit]
	a := t.hub
	if p.link != nil {
		a = p.link.access
	}
	open := known && p.account == account && (to.kubeConfig != nil) == (p.link != nil) && a != nil &&
		a.station == p.station && (p.link == nil || p.link.err == nil)
	t.mu.Unlock()
	if !open {
		return nil, false
	}
	mapper := t.mapper
	if !a.station.hub {
		mapper = nil
	}
	d, err := a.as(account, t.scheme, mapper)
	return d, err == nil
}

// forget drops what is remembered of a unit that is gone.
func (t *targets) forget(ctx context.Context, unit types.NamespacedName) {
	t.mu.Lock()
	from, known := t.places[unit]
	delete(t.places, unit)
	if known {
		t.release(from)
	}
	t.mu.Unlock()
	if from.station != nil {
		from.station.forget(ctx, unit)
	}
}

// release lets go of an account or a link that the last unit has left. The lock is
// held.
func (t *targets) release(from place) {
	if from.link == nil && from.account.Name == "" {
		return
	}
	var linked, acted bool
	for _, p := range t.places {
		linked = linked || p.link == from.link
		acted = acted || p.link == from.link && p.account == from.account
	}
	if from.link != nil && !linked {
		from.link.close()
		return
	}
	if !acted {
		a := t.hub
		if from.link != nil {
			a = from.link.access
		}
		if a != nil {
			a.drop(from.account)
		}
	}
}

// claim enters what an inventory holds as wanted. What is on another cluster is
// claimed when that is reached.
func (t *targets) claim(a address) {
	if a.kubeConfig != nil {
		return
	}
	t.mu.Lock()
	t.places[a.unit] = place{station: t.hub.station}
	t.mu.Unlock()
	t.hub.station.claim(a)
}

// sameCluster returns a filter for the units that are delivered to the same
// cluster as one that is delivered by d. Of a cluster that was not reached yet
// nothing is known: it must not hold up others.
func (t *targets) sameCluster(d *delivery) func(address) bool {
	return func(a address) bool {
		if a.kubeConfig == nil {
			return d.access.station.hub
		}
		key, err := linkKeyOf(a)
		if err != nil {
			return false
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		l := t.links[key]
		return l != nil && l.access != nil && l.access.station == d.access.station
	}
}

// away reports whether the unit belongs to a cluster that cannot be reached now.
func (t *targets) away(unit types.NamespacedName) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.places[unit].link
	return l != nil && l.err != nil
}

// objects returns how many objects all ledgers know.
func (t *targets) objects() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.hub.ledger.Len()
	for _, s := range t.stations {
		n += s.ledger.Len()
	}
	return n
}

// as returns the same place with the rights of a service account; the zero value
// means those of the access itself.
func (a *access) as(account types.NamespacedName, scheme *runtime.Scheme, mapper meta.RESTMapper) (*delivery, error) {
	if account.Name == "" {
		return a.delivery, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if d, ok := a.accounts[account]; ok {
		return d, nil
	}
	target, err := AsAccount(a.Target, account)
	if err != nil {
		return nil, err
	}
	d := &delivery{
		Target: target, ledger: a.ledger, account: account, access: a,
		rights: newRights(target.Cluster, a.station.targets.clock), explain: explainAs(target.Cluster, scheme, mapper),
	}
	a.accounts[account] = d
	return d, nil
}

// drop lets go of the clients of an account.
func (a *access) drop(account types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.accounts, account)
}

// AsAccount returns the target with the rights of a service account: everything
// that is read or changed for a unit is so in its name. The ledger stays as it is.
func AsAccount(t pipeline.Target, account types.NamespacedName) (pipeline.Target, error) {
	cluster, err := t.Cluster.AsAccount(account)
	if err != nil {
		return pipeline.Target{}, err
	}
	applier := *t.Applier
	applier.Cluster = cluster
	return pipeline.Target{Cluster: cluster, Ledger: t.Ledger, Applier: &applier}, nil
}

// explainAs says why an object is not ready, as far as the cluster's own rights
// tell. A mapper of nil means one that asks the cluster.
func explainAs(cluster *kube.Cluster, scheme *runtime.Scheme, mapper meta.RESTMapper) explainer {
	reader := sync.OnceValues(func() (client.Client, error) {
		return client.New(cluster.Config, client.Options{HTTPClient: cluster.HTTP, Scheme: scheme, Mapper: mapper})
	})
	return func(ctx context.Context, id object.ID, version string) string {
		r, err := reader()
		if err != nil {
			return err.Error()
		}
		return explainWith(cluster, r)(ctx, id, version)
	}
}
