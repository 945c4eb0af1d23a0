package enroll

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
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
	config, err := access.Config(ctx, e.direct, cluster, e.Kubeconfigs)
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
