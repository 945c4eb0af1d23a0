package controller

import (
	"context"
	"errors"
	"fmt"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
			return ctrl.Result{RequeueAfter: done.again}, err
		}
		if err := r.removeChart(ctx, r.h); err != nil {
			return ctrl.Result{}, err
		}
	}
	before := r.h.DeepCopy()
	controllerutil.RemoveFinalizer(r.h, helmv2.HelmReleaseFinalizer)
	if err := client.IgnoreNotFound(r.client.Patch(ctx, r.h, client.MergeFrom(before), owner)); err != nil {
		return ctrl.Result{}, fmt.Errorf("remove the finalizer: %w", err)
	}
	r.forget(ctx, r.unit())
	return ctrl.Result{}, nil
}

// uninstallDeleted uninstalls the release, with the rights that it was made with. When the
// account is gone, nobody may delete in its name, and with more rights nothing is
// deleted: as with the toolkit's engine, what was released stays.
func (r *helmReleaseRun) uninstallDeleted(ctx context.Context) (stepped, error) {
	if r.h.Status.StorageNamespace == "" {
		return goOn(), nil
	}
	var err error
	if r.target, err = r.targets.of(ctx, addressOfRelease(r.h)); errors.Is(err, errConnecting) {
		return comeBack(placeComes), nil
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
	if err := r.locate(); err != nil {
		return r.stuck(ctx, err)
	}
	remaining, err := r.pipeline.Remove(ctx, r.unit(), r.target.Target, releaseEntries(r.h))
	if err != nil {
		return r.stuck(ctx, err)
	}
	if len(remaining) > 0 {
		return comeBack(placeComes), nil
	}
	if err := r.memory.store.Purge(ctx, r.memory.key.Name); err != nil {
		return r.stuck(ctx, err)
	}
	return goOn(), nil
}

// stuck reports that the release cannot be uninstalled now.
func (r *helmReleaseRun) stuck(ctx context.Context, err error) (stepped, error) {
	again := r.fail(helmv2.UninstallFailedReason, err)
	return comeBack(again), r.write(ctx)
}
