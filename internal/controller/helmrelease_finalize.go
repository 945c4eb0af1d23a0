package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/failure"
)

// finalize uninstalls the release of a deleted HelmRelease, removes its HelmChart, and
// lets it go. One that is suspended leaves all as it is.
func (r *helmReleaseRun) finalize(ctx context.Context) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(r.h, helmv2.HelmReleaseFinalizer) {
		return ctrl.Result{}, nil
	}
	if !r.h.Spec.Suspend {
		done, err := r.uninstallDeleted(ctx)
		if err != nil || !done.more {
			return ctrl.Result{RequeueAfter: max(done.again, time.Millisecond)}, err
		}
		if err := r.removeChart(ctx, r.h); err != nil {
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{}, r.letGo(ctx, r.h, helmv2.HelmReleaseFinalizer, r.forget)
}

// uninstallDeleted uninstalls the release, with the rights that it was made with. When the
// account is gone, nobody may delete in its name, and with more rights nothing is
// deleted: as with the toolkit's engine, what was released stays.
func (r *helmReleaseRun) uninstallDeleted(ctx context.Context) (stepped, error) {
	var err error
	if r.target, err = r.targets.of(ctx, addressOfRelease(r.h)); errors.Is(err, errConnecting) {
		return comeBack(placeComes), nil
	} else if errors.Is(err, failure.Of(failure.NotFound)) || err != nil && r.h.Status.StorageNamespace == "" {
		r.events.Event(r.h, corev1.EventTypeWarning, helmv2.UninstallFailedReason,
			clip("The cluster cannot be reached any more, so what was released stays: "+err.Error()))
		return goOn(), nil
	} else if err != nil {
		return r.stuck(ctx, err)
	}
	leave, ok := r.targets.enter(r.target, r.unit()) //nolint:contextcheck // it ends with leave
	if !ok {
		return comeBack(placeComes), nil
	}
	defer leave()
	if err := r.targets.accountRemains(ctx, r.target); errors.Is(err, failure.Of(failure.NotFound)) {
		r.events.Event(r.h, corev1.EventTypeWarning, helmv2.UninstallFailedReason,
			clip(fmt.Sprintf("ServiceAccount %s is gone, so what was released stays: %s", r.target.account, entryNames(releaseEntries(r.h)))))
		return goOn(), nil
	} else if err != nil {
		return r.stuck(ctx, err)
	}
	if err := r.locate(); err != nil { //nolint:contextcheck // the watch outlives the call
		return r.stuck(ctx, err)
	}
	return r.removeRelease(ctx)
}

// removeRelease uninstalls what the status or the storage says is there.
func (r *helmReleaseRun) removeRelease(ctx context.Context) (stepped, error) {
	m := r.memory
	old, storage := r.h.Status.History.Latest(), cmp.Or(r.h.Status.StorageNamespace, m.key.Namespace)
	if old == nil && m.removal == nil {
		// One that was begun and never told of is known by its marks.
		record, err := m.store.Last(ctx, m.key.Name)
		if isAbsent(err) || err == nil && !record.Marks.Of(r.unit()) {
			return goOn(), nil
		}
		if err != nil {
			return r.stuck(ctx, err)
		}
	}
	if old == nil {
		old = &helmv2.Snapshot{Name: m.key.Name, Namespace: r.h.GetReleaseNamespace()}
	}
	done := r.uninstall(ctx, helmv2.ReleaseActionUninstall, old, storage)
	if done.more {
		r.announce()
		return done, nil
	}
	return done, r.write(ctx)
}

// stuck reports that the release cannot be uninstalled now.
func (r *helmReleaseRun) stuck(ctx context.Context, err error) (stepped, error) {
	again := r.fail(helmv2.UninstallFailedReason, err)
	return comeBack(again), r.write(ctx)
}
