package pivot

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// invite invites the target to the fleet that it is the hub of, where it is one that joins by itself: its engine has no kubeconfig of it, and whoever
// moves the plane has one. It finds itself at the address at which it is reached from here.
func (o Options) invite(ctx context.Context) error {
	cluster := &v1alpha1.FleetCluster{}
	if err := o.To.Client.Get(ctx, o.Cluster, cluster); err != nil {
		return wrap(err, "read FleetCluster/%s of the new hub", o.Cluster)
	}
	if cluster.Spec.Join == nil {
		return nil
	}
	who := join.Identity{Namespace: cluster.Namespace, Name: cluster.Name, UID: cluster.UID, Member: o.To.ID}
	has, err := join.Store{Client: o.To.Client}.Load(ctx)
	if err != nil || has != nil && has.Identity == who {
		return err
	}
	endpoint, err := join.EndpointOf(o.To.Config)
	if err != nil {
		return err
	}
	invitation, _, err := join.Invite(ctx, o.To.Client, cluster, endpoint)
	if err != nil {
		return err
	}
	data, err := invitation.Kubeconfig()
	if err != nil {
		return fmt.Errorf("write the invitation as a kubeconfig: %w", err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: agent.InvitationName}, Data: map[string][]byte{agent.InvitationKey: data}}
	err = o.To.Client.Create(ctx, s, owner)
	if apierrors.IsAlreadyExists(err) {
		err = o.To.Client.Update(ctx, s, owner)
	}
	if err != nil {
		return wrap(err, "invite the new hub to its own fleet with Secret/%s/%s", s.Namespace, s.Name)
	}
	return join.Given(ctx, o.To.Client, invitation, string(o.To.ID))
}
