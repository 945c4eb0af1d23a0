package hub

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// itself knows which cluster the hub is, which does not change.
type itself struct {
	reader client.Reader

	mu sync.Mutex
	id types.UID // guarded by mu; empty before it was asked for
}

// is reports whether a FleetCluster stands for the hub itself: a cluster that a management plane was moved into is the member of its own hub.
func (i *itself) is(ctx context.Context, cluster *v1alpha1.FleetCluster) (bool, error) {
	if cluster.Status.ClusterID == "" {
		return false, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.id == "" {
		system := &metav1.PartialObjectMetadata{}
		system.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
		if err := i.reader.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, system); err != nil {
			return false, fmt.Errorf("find out which cluster the hub is: %w", err)
		}
		i.id = system.UID
	}
	return cluster.Status.ClusterID == string(i.id), nil
}
