package controller

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/report"
)

// units is what the reconcilers of both kinds of units have in common: Kustomizations
// and HelmReleases are read, woken and ordered in the same way.
type units[T unitKind[T]] struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	statuses  kube.Statuses
	events    record.EventRecorder
	clock     clock.PassiveClock
	pipeline  *pipeline.Pipeline
	targets   *targets
	artifacts *artifacts
	attempts  *attempts
	written   *written[T]
	self      *feed.Feed
	wording   *wording
	// references is what values, variables, keys and kubeconfigs are read through.
	references *references
	// held is told what the runs of units leave waiting for approval.
	held *heldPlans
	// claimed is closed when the ledger knows what every unit had delivered before
	// the engine started.
	claimed chan struct{}

	tenancy Tenancy
	// additiveReadyExpr: a readyExpr is asked besides whether the dependency is ready,
	// not instead of it.
	additiveReadyExpr bool

	// one and many return a new object of the kind, and a new list of them.
	one  func() T
	many func() client.ObjectList
	// address says where a unit is delivered to.
	address func(T) address
}

// newUnits returns the units of one kind, which are not told yet what they are and where
// they are delivered to.
func newUnits[T unitKind[T]](e *engine, events record.EventRecorder, artifacts *artifacts, p *pipeline.Pipeline) *units[T] {
	return &units[T]{
		turns: e.turns, client: e.mgr.GetClient(), events: events, clock: clock.RealClock{}, pipeline: p,
		artifacts: artifacts, attempts: newAttempts(), written: newWritten[T](), self: &feed.Feed{}, wording: newWording(),
		references: e.references, held: e.held, claimed: make(chan struct{}),
		tenancy: e.options.Tenancy, additiveReadyExpr: e.options.AdditiveReadyExpr,
	}
}

// unitKind is a kind of unit.
type unitKind[T any] interface {
	copied[T]
	report.Conditioned
}

// ready waits until the ledgers know what was delivered before; it is false where the
// engine stops before that.
func (u *units[T]) ready(ctx context.Context) bool {
	u.turns.Add(1)
	select {
	case <-u.claimed:
		return true
	case <-ctx.Done():
		return false
	}
}

// get returns a unit as it was last written by anybody we know of.
func (u *units[T]) get(ctx context.Context, name types.NamespacedName) (T, error) {
	o := u.one()
	if err := u.client.Get(ctx, name, o); err != nil {
		return o, err
	}
	return u.written.freshest(o), nil
}

// each calls do for the units that the options select. They are the cache's own, and
// must not be changed.
func (u *units[T]) each(ctx context.Context, do func(T), o ...client.ListOption) error {
	list := u.many()
	if err := u.client.List(ctx, list, append(o, client.UnsafeDisableDeepCopy)...); err != nil {
		return err
	}
	return apimeta.EachListItem(list, func(item runtime.Object) error {
		if o, ok := item.(T); ok {
			do(o)
		}
		return nil
	})
}

// hold sees to it that the unit is not gone before what it delivered is.
func (u *units[T]) hold(ctx context.Context, o T, finalizer string) error {
	if !controllerutil.AddFinalizer(o, finalizer) {
		return nil
	}
	before := o.DeepCopy()
	controllerutil.RemoveFinalizer(before, finalizer)
	if err := u.client.Patch(ctx, o, client.MergeFrom(before), owner); err != nil {
		return fmt.Errorf("add the finalizer: %w", err)
	}
	u.written.note(o)
	return nil
}

// publish sends the status of a unit, of which before is what it was when it was last read or written. Where somebody changed the
// unit meanwhile, the difference is sent.
func (u *units[T]) publish(ctx context.Context, o, before T) error {
	err := u.statuses.Put(ctx, o, FieldManager)
	if apierrors.IsConflict(err) {
		err = u.client.Status().Patch(ctx, o, client.MergeFrom(before), owner)
	}
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// letGo ends what hold began, and forgets the unit. What is kept is that it was let go: a
// cache that is behind must not have it deleted once more.
func (u *units[T]) letGo(ctx context.Context, o T, finalizer string, forget func(context.Context, types.NamespacedName)) error {
	before := o.DeepCopy()
	before.SetUID("") // so that the patch names it: one that was made anew under this name is another unit
	controllerutil.RemoveFinalizer(o, finalizer)
	gone := o.DeepCopy() // the answer is the unit as it is now, and need not be this one
	if err := client.IgnoreNotFound(u.client.Patch(ctx, o, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	forget(ctx, client.ObjectKeyFromObject(gone))
	gone.SetResourceVersion(strconv.FormatUint(math.MaxUint64, 10)) // nothing comes after the end
	u.written.note(gone)
	return nil
}

// forget drops what is remembered of a unit that is gone.
func (u *units[T]) forget(ctx context.Context, as user) {
	unit := as.NamespacedName
	u.pipeline.Forget(unit)
	u.attempts.forget(unit)
	u.written.forget(unit)
	u.wording.forget(unit)
	u.references.forget(as)
	u.held.forget(as)
	u.targets.forget(ctx, unit)
}

// saw takes what a ledger saw to the unit that it concerns.
func (u *units[T]) saw(c observe.Change) {
	priority := soon
	if c.Drift {
		u.attempts.drift(c.Owner)
		priority = urgent
	}
	u.self.AddAt(c.Owner, priority)
}

// stir brings a unit back at once: something that it refers to changed. What it lacked
// may be there now, so that a failed attempt need not wait.
func (u *units[T]) stir(unit types.NamespacedName) { u.wake(unit, true) }

func (u *units[T]) wake(unit types.NamespacedName, retry bool) {
	if retry {
		u.attempts.drift(unit)
	}
	u.self.AddAt(unit, soon)
}

// wakeWanting enqueues the units that failed for want of what came.
func (u *units[T]) wakeWanting(n news) {
	for _, unit := range u.attempts.arrived(n) {
		u.self.AddAt(unit, soon)
	}
}

// reached completes what targets are made from with who is delivered to them.
func (u *units[T]) reached(o targetOptions) targetOptions {
	o.units = func(ctx context.Context) ([]address, error) {
		var all []address
		err := u.each(ctx, func(o T) { all = append(all, u.address(o)) })
		return all, err
	}
	o.wake, o.saw, o.left, o.moved = u.wake, u.saw, u.pipeline.Forget, tellMoved(u.events)
	return o
}

// claim enters what the inventories hold as wanted, before two units can dispute an
// object that one of them has had all along. The ledger is told what they say about health before
// it watches anything, so that nothing has to be judged twice.
func (u *units[T]) claim(ctx context.Context) error {
	err := u.each(ctx, func(o T) {
		a := u.address(o)
		u.targets.claim(a)
		if words := u.wording.of(o); words.err == nil && a.kubeConfig == nil && !spokenBy(o).suspended {
			_ = u.targets.hub.ledger.Judge(ctx, a.unit, words.health) // tried again when it runs
		}
	})
	if err != nil {
		return fmt.Errorf("read the inventories: %w", err)
	}
	close(u.claimed)
	return nil
}
