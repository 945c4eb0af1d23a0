package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/report"
)

// assignments carries out what a hub told this cluster to run: the member's own copy of
// its ClusterAssignment becomes Kustomizations, which heal and prune what was assigned like anything
// else. The hub is not needed for it.
//
// What is made of the copy has no owner reference: a copy that somebody deletes tells nothing
// of what is to run, and must not empty the cluster. It goes on, and the next copy finds it.
type assignments struct {
	turns      *atomic.Uint64 // counts reconciles
	client     client.Client
	copies     client.Reader // knows the copies and no other ClusterAssignments
	events     record.EventRecorder
	clock      clock.PassiveClock
	attempts   *attempts
	deliveries *deliveries
	held       *heldPlans
	// ledger is told which Kustomization will deliver which unit: one that moves to another Placement is not deleted on the way.
	ledger *observe.Ledger
	self   *feed.Feed

	mu sync.Mutex
	// made is what each copy became last.
	made map[types.NamespacedName]madeParcels // guarded by mu
}

// madeParcels is what one generation of a copy became.
type madeParcels struct {
	uid        types.UID
	generation int64
	parcels    []parcel
}

// Reconcile implements reconcile.Reconciler.
func (r *assignments) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	a := &fleetv1.ClusterAssignment{}
	if err := r.copies.Get(ctx, req.NamespacedName, a); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			for _, other := range r.all(ctx, nil) { // one that waited for its end
				r.self.AddAt(other.NamespacedName, soon)
			}
		}
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !a.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	run := &assignmentRun{assignments: r, a: a, before: a.DeepCopy(), now: r.clock.Now()}
	again := run.do(ctx)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	if !equality.Semantic.DeepEqual(run.before.Status, a.Status) {
		if err := writeStatus(ctx, r.client, a, run.before); err != nil {
			return catchUp(err)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// assignmentRun is one reconcile of a copy.
type assignmentRun struct {
	*assignments
	a      *fleetv1.ClusterAssignment // changed as the run goes
	before *fleetv1.ClusterAssignment // as it was read
	now    time.Time
}

// do carries the assignment out and returns when to come back if nothing happens until
// then; 0 for never.
func (r *assignmentRun) do(ctx context.Context) time.Duration {
	if err := r.first(ctx); err != nil {
		return r.fail(fleetv1.ReasonNameTaken, err)
	}
	if !r.genuine() {
		return r.edited()
	}
	if r.a.Spec.Leave != "" {
		return r.leave(ctx)
	}
	if err := r.approve(ctx); err != nil {
		return r.fail(meta.ReconciliationFailedReason, err)
	}
	parcels, err := r.parcels()
	if err != nil {
		return r.fail(meta.BuildFailedReason, err)
	}
	kept := map[string]bool{}
	for i := range parcels {
		kept[parcels[i].name] = true
	}
	if err := r.deliveries.send(ctx, r.sender(), parcels); err != nil {
		return r.fail(reasonOfSending(err), err)
	}
	if _, err := r.deliveries.withdraw(ctx, r.sender(), kept, fleetv1.DeletionPolicyDelete); err != nil {
		return r.fail(meta.PruneFailedReason, err)
	}
	r.a.Status.Digest = r.a.Spec.Digest
	return r.succeed(meta.ReconciliationSucceededReason, "Delivered with "+plural(len(parcels), "Kustomization")+": "+r.a.Spec.Digest)
}

func (r *assignmentRun) sender() sender {
	return sender{
		maker: maker{fleetv1.ClusterAssignmentKind, client.ObjectKeyFromObject(r.a)}, label: fleetv1.MadeByAssignment,
	}
}

// first says which copy goes before this one: the oldest is the cluster's.
func (r *assignmentRun) first(ctx context.Context) error {
	list := &fleetv1.ClusterAssignmentList{}
	if err := r.copies.List(ctx, list); err != nil {
		return fmt.Errorf("list ClusterAssignments: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID != r.a.UID && other.DeletionTimestamp.IsZero() && older(other, r.a) {
			return &failure.Error{Op: "carry out", Object: "ClusterAssignment " + r.a.Name, Kind: failure.Conflict,
				Err: fmt.Errorf("the cluster carries out ClusterAssignment %s, and can be the member of one hub only", other.Name), Remedy: "delete one of the two"}
		}
	}
	return nil
}

func older(a, b *fleetv1.ClusterAssignment) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// parcels makes of the copy what delivers it, unless that was done already.
func (r *assignmentRun) parcels() ([]parcel, error) {
	name := client.ObjectKeyFromObject(r.a)
	r.mu.Lock()
	last, ok := r.made[name]
	r.mu.Unlock()
	if ok && last.uid == r.a.UID && last.generation == r.a.Generation {
		return last.parcels, nil
	}
	parcels, err := parcelsOf(&r.a.Spec)
	if err != nil {
		return nil, err
	}
	r.ledger.Expect(ownersOf(&r.a.Spec))
	r.mu.Lock()
	r.made[name] = madeParcels{r.a.UID, r.a.Generation, parcels}
	r.mu.Unlock()
	return parcels, nil
}

// leave takes back all that was made, and what that delivered, as the policy says.
func (r *assignmentRun) leave(ctx context.Context) time.Duration {
	r.ledger.Expect(nil)
	left, err := r.deliveries.withdraw(ctx, r.sender(), nil, r.a.Spec.Leave)
	if err != nil {
		return r.fail(meta.PruneFailedReason, err)
	}
	if len(left) > 0 {
		slices.Sort(left)
		report.Progressing(r.a, fleetv1.ReasonLeaving, "Waiting for the end of "+report.Names(left))
		r.a.Status.ObservedGeneration = r.a.Generation
		return 0
	}
	return r.succeed(fleetv1.ReasonLeft, "Nothing of what was assigned is delivered any more")
}

// approve passes the hub's approvals on to the units whose plans wait for them.
func (r *assignmentRun) approve(ctx context.Context) error {
	if len(r.a.Spec.ApprovedPlans) == 0 {
		return nil
	}
	var failed error
	for _, p := range r.held.all() {
		if !slices.Contains(r.a.Spec.ApprovedPlans, p.digest) {
			continue
		}
		var o client.Object = &kustomizev1.Kustomization{}
		if p.unit.Kind == helmv2.HelmReleaseKind {
			o = &helmv2.HelmRelease{}
		}
		if err := r.client.Get(ctx, p.unit.NamespacedName, o); err != nil {
			failed = errors.Join(failed, client.IgnoreNotFound(err))
			continue
		}
		failed = errors.Join(failed, r.annotate(ctx, o, p.digest))
	}
	return failed
}

func (r *assignmentRun) annotate(ctx context.Context, o client.Object, digest string) error {
	if o.GetAnnotations()[AnnotationApprovedPlan] == digest {
		return nil
	}
	before, _ := o.DeepCopyObject().(client.Object)
	annotations := map[string]string{AnnotationApprovedPlan: digest}
	for key, value := range o.GetAnnotations() {
		if key != AnnotationApprovedPlan {
			annotations[key] = value
		}
	}
	o.SetAnnotations(annotations)
	if err := r.client.Patch(ctx, o, client.MergeFrom(before), owner); err != nil {
		return fmt.Errorf("approve the plan of %s/%s: %w", o.GetNamespace(), o.GetName(), client.IgnoreNotFound(err))
	}
	r.events.Event(o, corev1.EventTypeNormal, "PlanApproved", "the hub approved the deletions of plan "+digest)
	return nil
}

func (r *assignmentRun) succeed(reason, message string) time.Duration {
	r.a.Status.ObservedGeneration = r.a.Generation
	r.attempts.forget(client.ObjectKeyFromObject(r.a))
	report.Ready(r.a, reason, message)
	return 0
}

// fail reports a failure and returns when to try again. Of a cache that is behind nobody is told.
func (r *assignmentRun) fail(reason string, err error) time.Duration {
	wait := r.attempts.of(client.ObjectKeyFromObject(r.a)).failed(r.now, false, longestRetry)
	if behind(err) {
		return wait
	}
	r.a.Status.ObservedGeneration = r.a.Generation
	if c := report.Condition(r.before, meta.ReadyCondition); c == nil || c.Reason != reason || c.Message != err.Error() {
		r.events.Event(r.a, corev1.EventTypeWarning, reason, clip(err.Error()))
	}
	report.Failed(r.a, reason, err.Error(), false)
	return wait
}

func reasonOfSending(err error) string {
	switch {
	case errors.Is(err, errGoing):
		return meta.ProgressingReason
	case errors.Is(err, failure.Of(failure.Conflict)):
		return fleetv1.ReasonNameTaken
	default:
		return meta.ReconciliationFailedReason
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// forget drops what is known of a copy that is gone. What it became stays.
func (r *assignments) forget(name types.NamespacedName) {
	r.attempts.forget(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.made, name)
}

// wakeAll brings all copies back that are carried out.
func (r *assignments) wakeAll() {
	r.mu.Lock()
	names := slices.Collect(maps.Keys(r.made))
	r.mu.Unlock()
	for _, name := range names {
		r.self.AddAt(name, soon)
	}
}

// reserved reports whether an object may be in the way of what copies become, or is that.
func reserved(o client.Object) bool {
	name := o.GetName()
	return o.GetNamespace() == fleetv1.MemberNamespace &&
		(o.GetLabels()[fleetv1.LabelMadeBy] == fleetv1.MadeByAssignment || name == fleetv1.SourcesUnit || name == fleetv1.SyncUnit ||
			strings.HasPrefix(name, fleetv1.PlacementUnitPrefix))
}
