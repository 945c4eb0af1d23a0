package enroll

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// member is a cluster that the hub reaches, and which one it is.
type member struct {
	client.Client
	id types.UID
}

// reach asks a member who it is.
func (e *enroller) reach(ctx context.Context, cluster *v1alpha1.FleetCluster) (*member, error) {
	secrets, done := e.Secrets(client.ObjectKeyFromObject(cluster))
	config, err := access.Config(ctx, secrets, cluster, e.Kubeconfigs)
	done()
	if err != nil {
		return nil, err
	}
	config.Timeout, config.QPS, config.UserAgent = e.Patience, -1, "bowline-hub"
	config.WarningHandler = rest.NoWarnings{}
	c, err := client.New(config, client.Options{Scheme: e.scheme, Mapper: agent.Mapper()})
	if err != nil {
		return nil, &failure.Error{Op: "connect to", Object: config.Host, Kind: failure.Unavailable, Err: err}
	}
	id, err := join.Member(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("ask %s who it is: %w", config.Host, err)
	}
	return &member{c, id}, nil
}

// incarnation is the one that a member is of a FleetCluster.
func incarnation(cluster *v1alpha1.FleetCluster, id types.UID) string {
	return join.Identity{Namespace: cluster.Namespace, Name: cluster.Name, UID: cluster.UID, Member: id}.Incarnation()
}

// memberOf returns the other FleetCluster of this hub that a cluster has joined as; nil where there is none. It goes by the
// incarnation, which only the hub writes.
func (e *enroller) memberOf(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member) (*v1alpha1.FleetCluster, error) {
	var all v1alpha1.FleetClusterList
	if err := e.cached.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("look whose member the cluster %s is: %w", m.id, err)
	}
	for i := range all.Items {
		other := &all.Items[i]
		if other.UID != cluster.UID && other.Status.Incarnation != "" && other.Status.Incarnation == incarnation(other, m.id) {
			return other, nil
		}
	}
	return nil, nil //nolint:nilnil // as the comment says
}

// twice tells of a cluster that has joined as another FleetCluster already. It is that one's, and nothing is installed there: an
// agent has one hub and one name.
func (e *enroller) twice(ctx context.Context, cluster *v1alpha1.FleetCluster, m *member, other *v1alpha1.FleetCluster, err error) (ctrl.Result, error) {
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: sharing}, e.waits(ctx, cluster, v1alpha1.IdentityConflictReason, fmt.Sprintf(
		"the kubeconfig reaches the cluster %q, which has joined as FleetCluster/%s/%s; delete one of the two, or correct the kubeconfig",
		m.id, other.Namespace, other.Name))
}
