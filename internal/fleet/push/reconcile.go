package push

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
)

// outdated is after what time a write is tried again that was made from something old: an event is
// under way that says what is new.
const outdated = 100 * time.Millisecond

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster. It waits for no member.
func (p *Pusher) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := &v1alpha1.FleetCluster{}
	err := p.client.Get(ctx, req.NamespacedName, cluster)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return ctrl.Result{}, fmt.Errorf("read FleetCluster %s: %w", req.NamespacedName, err)
	case err != nil || !pushed(cluster):
		p.letGo(req.NamespacedName)
		return ctrl.Result{}, nil //nolint:nilerr // it is gone
	}
	found, err := p.look(ctx, cluster)
	if err == nil && found != nil {
		err = p.tell(ctx, cluster, *found)
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return ctrl.Result{RequeueAfter: outdated}, nil
	}
	return ctrl.Result{}, err
}

// pushed reports whether the hub is to run an engine for the cluster. One that is being deleted still has to
// let go of what was assigned.
func pushed(c *v1alpha1.FleetCluster) bool {
	return c.Spec.Agent.Mode == v1alpha1.AgentPush && c.Spec.Join == nil &&
		(c.DeletionTimestamp.IsZero() || controllerutil.ContainsFinalizer(c, v1alpha1.LeaveFinalizer))
}

// begins reports whether it is time to begin with a cluster for which no engine runs. One that is being deleted and was filled has
// to be emptied, also by a hub that was restarted meanwhile.
func begins(c *v1alpha1.FleetCluster) bool {
	return c.Status.Incarnation != "" || c.DeletionTimestamp.IsZero() && provisioned(c) && !c.Spec.Suspend
}

// look sees to it that the engine runs that the cluster is to have, and returns what is known of it; nil for nothing new.
func (p *Pusher) look(ctx context.Context, cluster *v1alpha1.FleetCluster) (*found, error) {
	key := client.ObjectKeyFromObject(cluster)
	current := p.current(key)
	if current != nil && current.uid != cluster.UID {
		p.letGo(key)
		current = nil
	}
	if current == nil && !begins(cluster) {
		return nil, nil
	}
	config, way, err := p.way(ctx, cluster)
	switch {
	case err != nil && lasting(err):
		// Who took the kubeconfig away wants nobody to use it any more.
		p.stop(key)
		return &found{err: err}, nil
	case err != nil:
		return nil, err
	case current == nil || current.way != way:
		current = p.start(cluster, config, way) //nolint:contextcheck // an engine outlives the reconcile
	}
	if current == nil {
		return nil, nil // the hub ends
	}
	p.expect(current, expected(cluster))
	found := p.foundOf(current)
	return &found, nil
}

// way reads how the member is reached, and what tells this way from another.
func (p *Pusher) way(ctx context.Context, cluster *v1alpha1.FleetCluster) (*rest.Config, string, error) {
	reader, done := p.Secrets(client.ObjectKeyFromObject(cluster))
	defer done()
	config, text, err := access.Way(ctx, reader, cluster, p.Kubeconfigs)
	return config, fmt.Sprintf("%x", sha256.Sum256(text)), err
}

// lasting reports whether an error is about what somebody has to change, and not about a server that does not answer.
func lasting(err error) bool {
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return true
	}
	switch failure.KindOf(err) {
	case failure.Invalid, failure.NotFound, failure.Denied, failure.Refused, failure.Conflict, failure.Unsupported:
		return true
	default:
		return false
	}
}

func object(key types.NamespacedName) string { return "FleetCluster/" + key.String() }
