package join

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// approver decides on the requests of agents for certificates.
type approver struct {
	cached client.Reader // requests, as they were when the reconcile was asked for
	direct client.Client // reads from the API server
	events record.EventRecorder
	clock  clock.PassiveClock
	linger time.Duration
	grants *grants
}

// Reconcile implements reconcile.Reconciler.
func (a *approver) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var r certificatesv1.CertificateSigningRequest
	if err := a.cached.Get(ctx, req.NamespacedName, &r); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if at, ok := decided(&r); ok {
		return a.settle(ctx, &r, at)
	}
	g, no, err := a.judge(ctx, &r)
	if err != nil {
		return ctrl.Result{}, err
	}
	if no != nil {
		return outrun(a.deny(ctx, &r, no))
	}
	return outrun(a.approve(ctx, &r, g))
}

// decided returns when a request was approved, which is zero for one that was denied or failed.
func decided(r *certificatesv1.CertificateSigningRequest) (time.Time, bool) {
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateApproved {
			return c.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, len(r.Status.Conditions) > 0
}

// approve notes first and approves last: a request that is interrupted at any point is judged again, to the same end.
func (a *approver) approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest, g *granted) error {
	key := client.ObjectKeyFromObject(g.cluster)
	if g.secret != nil && g.secret.Annotations[annotationUsedBy] == "" {
		// It is written at the version that was judged: of two requests one is the first.
		g.secret.Annotations[annotationUsedBy] = string(r.UID)
		if err := a.direct.Update(ctx, g.secret, owner); err != nil {
			return fmt.Errorf("note that the invitation of %s is used: %w", object(key), err)
		}
	}
	defer a.grants.begin(key)()
	before := g.cluster.DeepCopy()
	g.cluster.Status.Incarnation, g.cluster.Status.ClusterID = g.claim.incarnation, string(g.member)
	apimeta.SetStatusCondition(&g.cluster.Status.Conditions, metav1.Condition{Type: v1alpha1.JoinedCondition, Status: metav1.ConditionTrue,
		Reason: v1alpha1.JoinedReason, ObservedGeneration: g.cluster.Generation, Message: "the agent of the cluster " + string(g.member) + " has a certificate"})
	if err := writeStatus(ctx, a.direct, g.cluster, before); err != nil {
		return err
	}
	if err := grant(ctx, a.direct, g.cluster, before.Status.Incarnation == ""); err != nil {
		return err
	}
	return a.decide(ctx, r, certificatesv1.CertificateApproved, "Invited", "it is the agent of "+object(key))
}

// deny says why on the request and on the FleetCluster that it names. That an invited cluster finds another in its
// place is for people to decide, so the FleetCluster says it for as long as that holds.
func (a *approver) deny(ctx context.Context, r *certificatesv1.CertificateSigningRequest, no *denial) error {
	cluster, err := a.named(ctx, r)
	if err != nil {
		return err
	}
	if _, invited := invitedAs(r); cluster != nil && invited && no.reason == v1alpha1.IdentityConflictReason {
		before := cluster.DeepCopy()
		apimeta.SetStatusCondition(&cluster.Status.Conditions, metav1.Condition{Type: v1alpha1.JoinedCondition, Status: metav1.ConditionFalse,
			Reason: no.reason, ObservedGeneration: cluster.Generation, Message: no.message})
		if err := writeStatus(ctx, a.direct, cluster, before); err != nil {
			return err
		}
	}
	if err := a.decide(ctx, r, certificatesv1.CertificateDenied, no.reason, no.message); err != nil {
		return err
	}
	if cluster != nil {
		a.events.Eventf(cluster, corev1.EventTypeWarning, no.reason, "CertificateSigningRequest/%s is denied: %s", r.Name, no.message)
	}
	return nil
}

// named returns the FleetCluster that a request names, and nil where it names none.
func (a *approver) named(ctx context.Context, r *certificatesv1.CertificateSigningRequest) (*v1alpha1.FleetCluster, error) {
	asked, err := parseRequest(r)
	if err != nil {
		return nil, nil //nolint:nilerr // what cannot be read names nobody
	}
	c, ok := parseUser(asked.Subject.CommonName)
	if !ok {
		return nil, nil
	}
	cluster := &v1alpha1.FleetCluster{}
	err = a.direct.Get(ctx, c.key(), cluster)
	switch {
	case err == nil:
		return cluster, nil
	case client.IgnoreNotFound(err) == nil:
		return nil, nil
	}
	return nil, fmt.Errorf("read %s: %w", object(c.key()), err)
}

func (a *approver) decide(ctx context.Context, r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string) error {
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message})
	if err := a.direct.SubResource("approval").Update(ctx, r, owner); err != nil {
		return fmt.Errorf("decide on CertificateSigningRequest/%s: %w", r.Name, err)
	}
	return nil
}

// settle ends the invitation of a request that was answered, when the agent has had time to read the answer.
// Until then the invitation is good for nothing else.
func (a *approver) settle(ctx context.Context, r *certificatesv1.CertificateSigningRequest, approved time.Time) (ctrl.Result, error) {
	if _, invited := invitedAs(r); !invited || approved.IsZero() || len(r.Status.Certificate) == 0 {
		return ctrl.Result{}, nil
	}
	if left := approved.Add(a.linger).Sub(a.clock.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: min(left, a.linger)}, nil
	}
	c, no := claimOf(r)
	if no != nil {
		return ctrl.Result{}, nil // somebody else approved it
	}
	return ctrl.Result{}, a.end(ctx, r, c)
}

// end ends the invitation that a request was made with, and no newer one.
func (a *approver) end(ctx context.Context, r *certificatesv1.CertificateSigningRequest, c claim) error {
	name, _ := invitedAs(r)
	if name.Namespace != c.namespace {
		return nil
	}
	for _, o := range invitationNamed(name) {
		if err := client.IgnoreNotFound(a.direct.Delete(ctx, o)); err != nil {
			return fmt.Errorf("end the invitation of %s: %w", object(c.key()), err)
		}
	}
	return nil
}

// writeStatus writes the status if nobody else changed the object meanwhile.
func writeStatus(ctx context.Context, c client.Client, cluster, before *v1alpha1.FleetCluster) error {
	err := c.Status().Patch(ctx, cluster, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", object(client.ObjectKeyFromObject(cluster)), err)
	}
	return nil
}

var errNoEvents = errors.New("register the approver of agents: a recorder of events is needed")
