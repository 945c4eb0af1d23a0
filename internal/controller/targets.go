package controller

import (
	"context"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/report"
)

// accountOf says as which service account of its own namespace a Kustomization is
// delivered; "" means with the engine's own rights. It is asked for every run, so
// that it must answer from memory.
type accountOf func(*kustomizev1.Kustomization) string

// delivery is where a unit is delivered to, and in whose name. Reads and writes of
// the target are made with those rights; what the ledger sees, it sees with the
// engine's.
type delivery struct {
	pipeline.Target
	ledger *observe.Ledger
	// account is the service account in whose name the unit is delivered; the zero
	// value means the engine's own.
	account types.NamespacedName
	// rights are those of the account; nil with the engine's own.
	rights  *rights
	explain explainer
}

// targets knows where each unit is delivered to.
type targets struct {
	hub     *delivery
	account accountOf
	scheme  *runtime.Scheme
	mapper  meta.RESTMapper
	clock   clock.PassiveClock

	mu       sync.Mutex
	accounts map[types.NamespacedName]*delivery                     // guarded by mu; on the hub
	users    map[types.NamespacedName]map[types.NamespacedName]bool // guarded by mu; units by account
	used     map[types.NamespacedName]types.NamespacedName          // guarded by mu; the account of each unit
	// found is when an account was last seen to exist.
	found accountsFound
}

func newTargets(hub *delivery, account accountOf, scheme *runtime.Scheme, mapper meta.RESTMapper, c clock.PassiveClock) *targets {
	return &targets{
		hub: hub, account: account, scheme: scheme, mapper: mapper, clock: c,
		accounts: map[types.NamespacedName]*delivery{},
		users:    map[types.NamespacedName]map[types.NamespacedName]bool{},
		used:     map[types.NamespacedName]types.NamespacedName{},
		found:    newAccountsFound(),
	}
}

// of returns where the Kustomization is delivered to. It sends no request.
func (t *targets) of(_ context.Context, k *kustomizev1.Kustomization) (*delivery, error) {
	account := types.NamespacedName{}
	if name := t.account(k); name != "" {
		account = types.NamespacedName{Namespace: k.Namespace, Name: name}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.use(client.ObjectKeyFromObject(k), account)
	if account.Name == "" {
		return t.hub, nil
	}
	if d, ok := t.accounts[account]; ok {
		return d, nil
	}
	d, err := t.hub.as(account, t)
	if err != nil {
		return nil, err
	}
	t.accounts[account] = d
	return d, nil
}

// use notes that the unit is delivered as the account from now on. Clients that no
// unit uses are let go. The lock is held.
func (t *targets) use(unit, account types.NamespacedName) {
	before, ok := t.used[unit]
	if ok && before == account {
		return
	}
	if ok {
		delete(t.users[before], unit)
		if len(t.users[before]) == 0 {
			delete(t.users, before)
			delete(t.accounts, before)
		}
	}
	t.used[unit] = account
	if t.users[account] == nil {
		t.users[account] = map[types.NamespacedName]bool{}
	}
	t.users[account][unit] = true
}

// forget drops what is remembered of a unit that is gone.
func (t *targets) forget(ctx context.Context, unit types.NamespacedName) {
	t.hub.ledger.Want(unit, nil)
	_ = t.hub.ledger.Follow(ctx, unit, nil) // following nothing asks nobody
	_ = t.hub.ledger.Judge(ctx, unit, nil)  // what it leaves behind is nobody's matter
	t.mu.Lock()
	defer t.mu.Unlock()
	t.use(unit, types.NamespacedName{})
	delete(t.used, unit)
	delete(t.users[types.NamespacedName{}], unit)
}

// claim enters what an inventory holds as wanted. That of a unit which acts as an
// account may have been written by whoever may write its status.
func (t *targets) claim(k *kustomizev1.Kustomization) {
	if k.Spec.KubeConfig != nil {
		return // what it holds is on another cluster
	}
	entries, _ := report.Entries(k.Status.Inventory)
	t.hub.ledger.Claim(client.ObjectKeyFromObject(k), idsOf(entries), t.account(k) != "")
}

// as returns the same place with the rights of a service account.
func (d *delivery) as(account types.NamespacedName, t *targets) (*delivery, error) {
	target, err := AsAccount(d.Target, account)
	if err != nil {
		return nil, err
	}
	return &delivery{
		Target: target, ledger: d.ledger, account: account,
		rights: newRights(target.Cluster, t.clock), explain: explainAs(target.Cluster, t.scheme, t.mapper),
	}, nil
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
// tell.
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
