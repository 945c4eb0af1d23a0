package enroll

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

const (
	// spare is how long an invitation has to be good for, so that it is not replaced by a new one.
	spare = 5 * time.Minute
	// lookAgain is how often a member is looked at whose agent is not heard of.
	lookAgain = 5 * time.Minute
	// sharing is how often a cluster is looked at that has joined as another FleetCluster.
	sharing = time.Minute
	// establishing is how long an API server is given to serve definitions before it is asked again.
	establishing = 300 * time.Millisecond
)

// enrol lets in a cluster that the hub can reach.
func (e *enroller) enrol(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(cluster)
	joined := cluster.Status.Incarnation != ""
	switch {
	case !provisioned(cluster) && joined:
		return ctrl.Result{}, nil // it is of age, and what it does needs no kubeconfig
	case !provisioned(cluster):
		return ctrl.Result{}, e.waits(ctx, cluster, v1alpha1.AwaitingJoinReason, "the agent is installed as soon as the control plane answers")
	case isJoined(cluster) && !unreachable(cluster) && e.seen.is(key, sightOf(cluster, e.digest)):
		return ctrl.Result{}, nil
	}
	// What is done now has to be right by what is there now.
	if err := e.direct.Get(ctx, key, cluster); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !cluster.DeletionTimestamp.IsZero() || !provisioned(cluster) {
		return ctrl.Result{}, nil // and its event brings it back
	}
	m, err := e.reach(ctx, cluster)
	if err != nil {
		return e.failed(ctx, cluster, fmt.Errorf("install the agent: %w", err))
	}
	switch cluster.Status.Incarnation {
	case "":
		if other, err := e.memberOf(ctx, cluster, m); err != nil || other != nil {
			return e.twice(ctx, cluster, m, other, err)
		}
		return e.invite(ctx, cluster, m)
	case incarnation(cluster, m.id):
		return e.keep(ctx, cluster, m)
	}
	return e.other(ctx, cluster, m)
}

// other decides what becomes of a FleetCluster that another cluster has joined as than the one which the hub reaches. One that
// the hub has built it knows: the old one is gone, and nobody else can have taken its place. Which of two clusters is meant
// by a kubeconfig is for people to say.
func (e *enroller) other(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(cluster)
	if cluster.Spec.Template == nil {
		return ctrl.Result{RequeueAfter: lookAgain}, e.waits(ctx, cluster, v1alpha1.IdentityConflictReason, fmt.Sprintf(
			"the kubeconfig reaches the cluster %q, but the cluster %q has joined; to let go of that one: bowline join %s -n %s --replace",
			m.id, cluster.Status.ClusterID, cluster.Name, cluster.Namespace))
	}
	if err := join.Replace(ctx, e.direct, key); err != nil {
		return ctrl.Result{}, err
	}
	e.Events.Eventf(cluster, corev1.EventTypeNormal, "Rebuilt", "the cluster was built anew, as %q; the certificate of %q has no rights any more", m.id, cluster.Status.ClusterID)
	return ctrl.Result{}, nil // the change of its incarnation brings it back
}

// invite invites a member that has not joined, unless it was invited and still can.
func (e *enroller) invite(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member) (ctrl.Result, error) {
	pending, err := join.PendingOf(ctx, e.direct, cluster)
	if err != nil {
		return ctrl.Result{}, err
	}
	left, ok := e.good(pending, m)
	switch {
	case !ok:
		return e.install(ctx, cluster, m, e.invitation)
	case cluster.Annotations[v1alpha1.AgentAnnotation] != e.digest:
		return e.install(ctx, cluster, m, nil)
	case pending.Used:
		return ctrl.Result{RequeueAfter: min(left, time.Minute)}, nil // its answer is on the way
	}
	return ctrl.Result{RequeueAfter: left}, e.waits(ctx, cluster, v1alpha1.AwaitingJoinReason, e.awaiting())
}

const awaitingAgent = "the agent is installed and invited, and has not asked for its certificate yet; look at the Deployment bowline-system/bowline-agent of the cluster"

// awaiting says what a member that was invited is waited for, and why it may never come.
func (e *enroller) awaiting() string {
	if !e.Inside {
		return awaitingAgent
	}
	return fmt.Sprintf("%s; it was told to find the hub at %s, which is an address inside of the hub's own cluster: "+
		"start the hub with --hub-url and the address at which members reach its API server", awaitingAgent, e.Hub.Server)
}

// good reports whether an invitation is in the hands of a member and can be used, and for how long it will be.
func (e *enroller) good(p *join.Pending, m *member) (time.Duration, bool) {
	if p == nil || p.GivenTo != string(m.id) && p.GivenTo != join.ToWhoever {
		return 0, false
	}
	left := p.Left(e.Clock.Now()) - spare
	return left, left > 0
}

// keep sees to the agent of a member that has joined.
func (e *enroller) keep(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(cluster)
	installed := cluster.Annotations[v1alpha1.AgentAnnotation]
	if unreachable(cluster) || installed == "" {
		nobody, err := e.forgotten(ctx, cluster, m)
		if err != nil {
			return e.failed(ctx, cluster, fmt.Errorf("look at the agent: %w", err))
		}
		if nobody {
			return e.invite(ctx, cluster, m)
		}
	}
	sight := sightOf(cluster, e.digest)
	if installed != e.digest || unreachable(cluster) && !e.seen.is(key, sight) {
		if result, err := e.install(ctx, cluster, m, nil); err != nil || result.RequeueAfter > 0 {
			return result, err
		}
	}
	e.seen.set(key, sightOf(cluster, e.digest))
	e.Retry.Forget(key)
	if unreachable(cluster) {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	return e.settled(ctx, cluster)
}

// forgotten reports whether a member has no certificate of its incarnation any more, so that its agent can join
// again only if it is invited.
func (e *enroller) forgotten(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member) (bool, error) {
	has, err := join.Store{Client: m}.Load(ctx)
	if has == nil {
		return err == nil, err
	}
	return has.UID != cluster.UID || has.Member != m.id, nil
}

// settled says that a member has joined, where somebody else's attempt to do so is over.
func (e *enroller) settled(ctx context.Context, cluster *v1alpha1.FleetCluster) (ctrl.Result, error) {
	if isJoined(cluster) {
		return ctrl.Result{}, nil
	}
	pending, err := join.PendingOf(ctx, e.direct, cluster)
	if err != nil {
		return ctrl.Result{}, err
	}
	if pending != nil && conflicts(cluster) {
		if left := pending.Left(e.Clock.Now()); left > 0 {
			return ctrl.Result{RequeueAfter: left}, nil
		}
	}
	return ctrl.Result{}, e.has(ctx, cluster)
}

// inviting makes an invitation, as it is handed over.
type inviting func(ctx context.Context, cluster *v1alpha1.FleetCluster) (join.Invitation, []byte, error)

func (e *enroller) invitation(ctx context.Context, cluster *v1alpha1.FleetCluster) (join.Invitation, []byte, error) {
	i, _, err := join.Invite(ctx, e.direct, cluster, e.Hub)
	if err != nil {
		return i, nil, err
	}
	data, err := i.Kubeconfig()
	return i, data, err
}

// install applies the agent's manifests, with a new invitation or with none, and notes what it did.
func (e *enroller) install(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member, invite inviting) (ctrl.Result, error) {
	if err := e.hold(ctx, cluster); err != nil {
		return ctrl.Result{}, err
	}
	served, err := agent.Prepare(ctx, m, e.manifests)
	if err != nil {
		return e.failed(ctx, cluster, err)
	}
	if !served {
		return ctrl.Result{RequeueAfter: establishing}, nil
	}
	all := e.manifests
	var invitation join.Invitation
	if invite != nil {
		var data []byte
		if invitation, data, err = invite(ctx, cluster); err != nil {
			return ctrl.Result{}, err
		}
		if all, err = agent.Manifests(agent.Options{Image: e.Image, Args: e.Args, Invitation: data}); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := agent.Install(ctx, m, all); err != nil {
		return e.failed(ctx, cluster, err)
	}
	e.Retry.Forget(client.ObjectKeyFromObject(cluster))
	if invite != nil {
		if err := join.Given(ctx, e.direct, invitation, string(m.id)); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := e.note(ctx, cluster, e.digest); err != nil {
		return ctrl.Result{}, err
	}
	switch {
	case invite == nil:
		return ctrl.Result{}, nil
	case cluster.Status.Incarnation != "":
		return ctrl.Result{RequeueAfter: lookAgain}, nil // it has joined meanwhile, or joins again
	}
	return ctrl.Result{RequeueAfter: join.InvitationLife - spare}, e.waits(ctx, cluster, v1alpha1.AwaitingJoinReason, e.awaiting())
}

// hold keeps a FleetCluster whose cluster stays, so that the agent can be taken away. A cluster that was built for it is
// deleted with it.
func (e *enroller) hold(ctx context.Context, cluster *v1alpha1.FleetCluster) error {
	if cluster.Spec.KubeConfig == nil || slices.Contains(cluster.Finalizers, v1alpha1.AgentFinalizer) {
		return nil
	}
	before := cluster.DeepCopy()
	controllerutil.AddFinalizer(cluster, v1alpha1.AgentFinalizer)
	if err := e.direct.Patch(ctx, cluster, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner); err != nil {
		return fmt.Errorf("keep FleetCluster/%s/%s until its agent is gone: %w", cluster.Namespace, cluster.Name, err)
	}
	return nil
}

// note notes on a FleetCluster what was installed; nothing with an empty digest.
func (e *enroller) note(ctx context.Context, cluster *v1alpha1.FleetCluster, digest string) error {
	if cluster.Annotations[v1alpha1.AgentAnnotation] == digest {
		return nil
	}
	before := cluster.DeepCopy()
	if digest == "" {
		delete(cluster.Annotations, v1alpha1.AgentAnnotation)
	} else {
		if cluster.Annotations == nil {
			cluster.Annotations = map[string]string{}
		}
		cluster.Annotations[v1alpha1.AgentAnnotation] = digest
	}
	if err := client.IgnoreNotFound(e.direct.Patch(ctx, cluster, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("note the agent of FleetCluster/%s/%s: %w", cluster.Namespace, cluster.Name, err)
	}
	return nil
}
