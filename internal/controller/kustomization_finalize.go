package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
)

// finalize removes what a deleted Kustomization delivered, as its deletion
// policy says, and lets it go.
func (r *kustomizations) finalize(ctx context.Context, k *kustomizev1.Kustomization) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(k, kustomizev1.KustomizationFinalizer) {
		return ctrl.Result{}, nil
	}
	name := client.ObjectKeyFromObject(k)
	inventory, _ := report.Entries(k.Status.Inventory)
	if removes(k) && len(inventory) > 0 {
		remaining, err := r.remove(ctx, k, inventory)
		r.references.wrote(idsOf(inventory))
		if errors.Is(err, errNoPlace) || errors.Is(err, errConnecting) {
			return ctrl.Result{RequeueAfter: placeComes}, nil
		}
		if err != nil {
			a := r.attempts.of(name)
			wait := a.failed(r.clock.Now(), false, k.GetRetryInterval())
			r.events.Event(k, corev1.EventTypeWarning, meta.PruneFailedReason, clip(err.Error()))
			return ctrl.Result{RequeueAfter: wait}, r.reportStuck(ctx, k, meta.PruneFailedReason, err.Error())
		}
		if len(remaining) > 0 && k.Spec.DeletionPolicy == kustomizev1.DeletionPolicyWaitForTermination {
			return ctrl.Result{RequeueAfter: k.GetTimeout()}, r.reportStuck(ctx, k, meta.PruneFailedReason, "waiting for termination of "+entryNames(remaining))
		}
	}
	return ctrl.Result{}, r.letGo(ctx, k, kustomizev1.KustomizationFinalizer, r.forget)
}

// idsOf returns the objects of an inventory.
func idsOf(entries []plan.Entry) []object.ID {
	ids := make([]object.ID, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids
}

// remove deletes what a Kustomization delivered, with the rights that it was
// delivered with. When the account is gone, nobody may delete in its name, and with
// more rights nothing is deleted: as with the toolkit's engine, what was delivered
// stays, an event names it, and the Kustomization goes.
func (r *kustomizations) remove(ctx context.Context, k *kustomizev1.Kustomization, inventory []plan.Entry) ([]plan.Entry, error) {
	if name := k.Spec.ServiceAccountName; name != "" {
		if err := accountName("spec.serviceAccountName", name); err != nil {
			return inventory, orLetGo(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, k.GetTimeout())
	defer cancel()
	target, err := r.targets.of(ctx, addressOf(k))
	if err != nil {
		return inventory, orLetGo(err)
	}
	leave, ok := r.targets.enter(target, client.ObjectKeyFromObject(k)) //nolint:contextcheck // it ends with leave
	if !ok {
		return inventory, errNoPlace
	}
	defer leave()
	if err := r.targets.accountRemains(ctx, target); errors.Is(err, failure.Of(failure.NotFound)) {
		r.events.Event(k, corev1.EventTypeWarning, meta.PruneFailedReason,
			clip(fmt.Sprintf("ServiceAccount %s is gone, so what was delivered stays: %s", target.account, entryNames(inventory))))
		return nil, nil
	} else if err != nil {
		return inventory, orLetGo(err)
	}
	remaining, err := r.pipeline.Remove(ctx, client.ObjectKeyFromObject(k), target.Target, inventory)
	if err != nil {
		if why := target.turnedAway(client.ObjectKeyFromObject(k)); why != nil {
			err = why
		}
	}
	if err != nil && (target.access.link != nil || target.account.Name != "") {
		err = orLetGo(err)
	}
	return remaining, err
}

// errNoPlace: too many others are at work on the cluster. The unit is woken.
var errNoPlace = errors.New("waiting for its turn on the cluster")

// orLetGo adds what else can be done about a deletion that cannot be carried out:
// nothing is deleted unseen, or with other rights.
func orLetGo(err error) error {
	return fmt.Errorf("%w; or set spec.deletionPolicy: Orphan to keep what was delivered", err)
}

// removes says whether deleting the Kustomization deletes what it delivered.
func removes(k *kustomizev1.Kustomization) bool {
	if k.Spec.Suspend {
		return false
	}
	switch k.Spec.DeletionPolicy {
	case kustomizev1.DeletionPolicyOrphan:
		return false
	case kustomizev1.DeletionPolicyDelete, kustomizev1.DeletionPolicyWaitForTermination:
		return true
	default:
		return k.Spec.Prune
	}
}

func (r *kustomizations) reportStuck(ctx context.Context, k *kustomizev1.Kustomization, reason, message string) error {
	before := k.DeepCopy()
	report.Waiting(k, reason, message)
	if err := r.client.Status().Patch(ctx, k, client.MergeFrom(before), owner); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	r.written.note(k)
	return nil
}

func entryNames(entries []plan.Entry) string {
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.ID.String())
	}
	return report.Names(names)
}

// wantsDigest identifies what is delivered, for the history.
func wantsDigest(wants []plan.Want) string {
	lines := make([]string, 0, len(wants))
	for _, w := range wants {
		lines = append(lines, w.ID.Inventory()+" "+w.Digest)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// jitter spreads what comes back at an interval, by up to a twentieth.
func jitter(d time.Duration, seed string) time.Duration {
	sum := sha256.Sum256([]byte(seed))
	return d + d/20*time.Duration(sum[0])/255
}
