package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// bareTargets are targets of the cluster of the package, without an engine.
func bareTargets(t *testing.T, s *stage, woken chan<- types.NamespacedName) *targets {
	t.Helper()
	return bareTargetsOf(t, s, woken, FieldManager, object.KustomizeGroup)
}

// bareTargetsOf are those of units of one kind.
func bareTargetsOf(t *testing.T, s *stage, woken chan<- types.NamespacedName, manager, group string) *targets {
	t.Helper()
	cluster, err := kube.NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	ledger := observe.NewLedger(t.Context(), observe.Options{Cluster: cluster, Manager: manager, Group: group, Clock: clock.RealClock{}, Log: logr.Discard(), Notify: func(observe.Change) {}})
	applier := NewApplier(cluster, ledger, 1, nil)
	applier.Manager, applier.Group = manager, group
	hub := &delivery{Target: pipeline.Target{Cluster: cluster, Ledger: ledger, Applier: applier}, ledger: ledger}
	return newTargets(t.Context(), hub, targetOptions{
		tenancy: Tenancy{Open: true}, scheme: s.client.Scheme(), mapper: s.client.RESTMapper(), clock: clock.RealClock{},
		references: newReferences(t.Context(), s.client, cluster.Metadata, clock.RealClock{}, func(user) {}),
		remote:     remoteOptions{patience: 10 * time.Second, workers: 4, requests: 2, log: logr.Discard()},
		units:      func(context.Context) ([]address, error) { return nil, nil },
		wake:       func(unit types.NamespacedName, _ bool) { woken <- unit },
		saw:        func(observe.Change) {},
		left:       func(types.NamespacedName) {}, moved: func(address) {}, manager: manager, group: group,
	})
}

// What is known of a cluster, and the connection to it, is shared by all its units and
// ends with the last of them.
func TestTargetsEnd(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	woken := make(chan types.NamespacedName, 10)
	targets := bareTargets(t, s, woken)
	s.remoteSecret("remote", testkit.Other(t))
	var units []*kustomizev1.Kustomization
	for i := range 2 {
		k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("u", i), Namespace: s.namespace}}
		remotely("remote")(k)
		units = append(units, k)
		if _, err := targets.of(t.Context(), addressOf(k)); i == 0 && !errors.Is(err, errConnecting) {
			t.Fatalf("before anything is known: %v", err)
		}
	}
	if first := <-woken; first.Namespace != s.namespace {
		t.Fatalf("woken: %s", first)
	}
	one, err := targets.of(t.Context(), addressOf(units[0]))
	if err != nil {
		t.Fatal(err)
	}
	two, err := targets.of(t.Context(), addressOf(units[1]))
	if err != nil || one != two {
		t.Errorf("the two units share no access (%v)", err)
	}
	if err := one.ledger.Watch(t.Context(), schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}); err != nil {
		t.Fatal(err)
	}
	targets.forget(t.Context(), client.ObjectKeyFromObject(units[0]))
	if len(targets.stations) != 1 || len(targets.links) != 1 {
		t.Errorf("with one unit left there are %d stations and %d links", len(targets.stations), len(targets.links))
	}
	targets.forget(t.Context(), client.ObjectKeyFromObject(units[1]))
	if len(targets.stations) != 0 || len(targets.links) != 0 || len(targets.places) != 0 {
		t.Errorf("without units there are %d stations, %d links and %d places", len(targets.stations), len(targets.links), len(targets.places))
	}
	_, err = one.Cluster.Metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).List(t.Context(), metav1.ListOptions{})
	if !errors.Is(err, kube.ErrShut) {
		t.Errorf("the connection is still there: %v", err)
	}
}

// However many hang, workers are left for everybody else; whoever waits is woken in
// turn.
func TestBulkhead(t *testing.T) {
	t.Parallel()
	var woken []string
	b := newBulkhead(8, func(unit types.NamespacedName, _ bool) { woken = append(woken, unit.Name) })
	one, two, three := &link{}, &link{}, &link{}
	steps := []struct {
		name, reason string
		link         *link
		in           bool
	}{
		{"a", "it is the first", one, true},
		{"b", "a quarter of the workers", one, true},
		{"c", "its cluster has its share", one, false},
		{"d", "another cluster has its own", two, true},
		{"e", "another cluster has its own", two, true},
		{"f", "a half of the workers is with other clusters", three, false},
		{"c", "it is asked twice and waits once", one, false},
	}
	for _, s := range steps {
		if in := b.enter(s.link, types.NamespacedName{Name: s.name}); in != s.in {
			t.Errorf("%s is let in: %t; %s", s.name, in, s.reason)
		}
	}
	b.leave(two) // room for any
	b.leave(two)
	b.leave(one)
	if want := []string{"f", "c"}; !slices.Equal(woken, want) {
		t.Errorf("woken: %v, want %v", woken, want)
	}
	if len(b.queue) != 0 || b.sum != 1 {
		t.Errorf("there are %v waiting and %d inside", b.queue, b.sum)
	}
}

// A unit that is woken for a place and does not take it, because its cluster is away by
// then, leaves nobody behind it waiting.
func TestBulkheadPassesOn(t *testing.T) {
	t.Parallel()
	var woken []string
	b := newBulkhead(4, func(unit types.NamespacedName, _ bool) { woken = append(woken, unit.Name) })
	l := &link{}
	unit := func(name string) types.NamespacedName { return types.NamespacedName{Name: name} }
	for _, name := range []string{"inside", "a", "b", "c"} {
		if in := b.enter(l, unit(name)); in != (name == "inside") {
			t.Errorf("%s is let in: %t", name, in)
		}
	}
	b.leave(l)
	for _, step := range []struct {
		name, reason string
		run          func()
		want         []string
	}{
		{"not asked", "nobody woke it", func() { b.passOn(unit("other")) }, []string{"a"}},
		{"away", "it was woken and never came", func() { b.passOn(unit("a")) }, []string{"a", "b"}},
		{"again", "it has passed it on", func() { b.passOn(unit("a")) }, []string{"a", "b"}},
		{"taken", "it is inside", func() { b.enter(l, unit("b")); b.passOn(unit("b")) }, []string{"a", "b"}},
		{"behind", "all places are taken", func() { b.enter(l, unit("d")) }, []string{"a", "b"}},
		{"left", "it was inside", func() { b.leave(l) }, []string{"a", "b", "c"}},
		{"elsewhere", "it was woken for another cluster than it is delivered to by now", func() { b.enter(&link{}, unit("c")); b.passOn(unit("c")) }, []string{"a", "b", "c", "d"}},
	} {
		if step.run(); !slices.Equal(woken, step.want) {
			t.Errorf("%s: woken %v, want %v: %s", step.name, woken, step.want, step.reason)
		}
	}
}

// However many clusters a tenant names, they have one share together.
func TestBulkheadOfATenant(t *testing.T) {
	t.Parallel()
	b := newBulkhead(8, func(types.NamespacedName, bool) {})
	one, two, platform := &link{tenant: "shop"}, &link{tenant: "shop"}, &link{}
	for _, s := range []struct {
		name, reason string
		link         *link
		in           bool
	}{
		{"a", "it is the first", one, true},
		{"b", "a quarter of the workers", two, true},
		{"c", "the tenant has its share", two, false},
		{"d", "the platform has its own", platform, true},
		{"e", "the platform has its own", platform, true},
	} {
		if in := b.enter(s.link, types.NamespacedName{Name: s.name}); in != s.in {
			t.Errorf("%s is let in: %t; %s", s.name, in, s.reason)
		}
	}
	b.leave(one)
	if !b.enter(two, types.NamespacedName{Name: "c"}) {
		t.Error("there is room again, and the tenant is not let in")
	}
}

// A link that was closed leaves its successor alone.
func TestClosedLinkLeavesItsSuccessor(t *testing.T) {
	s := newStage(t)
	targets := bareTargets(t, s, make(chan types.NamespacedName, 10))
	k := &kustomizev1.Kustomization{}
	k.Namespace, k.Name = s.namespace, "one"
	k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "absent"}}
	first, err := targets.linkOf(addressOf(k), types.NamespacedName{})
	if err != nil {
		t.Fatal(err)
	}
	targets.forget(t.Context(), client.ObjectKeyFromObject(k))
	second, err := targets.linkOf(addressOf(k), types.NamespacedName{})
	if err != nil {
		t.Fatal(err)
	}
	targets.mu.Lock()
	first.close()
	now := targets.links[second.key]
	targets.mu.Unlock()
	if now != second {
		t.Error("the successor is forgotten: its units would connect for ever")
	}
	if _, ok := targets.at(addressOf(k)); ok {
		t.Error("somebody who only looks is let in before the cluster is known")
	}
}
