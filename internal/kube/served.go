package kube

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
)

// Served is all that a cluster serves, as its discovery tells.
type Served struct {
	// Version is that of Kubernetes, such as "v1.36.3".
	Version string
	Groups  []*metav1.APIGroup
	Lists   []*metav1.APIResourceList
}

// Changes counts how often it became known that the cluster serves something else than
// before. It says nothing of what others changed and nobody asked for yet.
func (r *Resources) Changes() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes
}

// Served asks the cluster for all that it serves, and adds what definitions told ahead of
// it. Groups whose own API server does not answer are left out. It is kept by the caller.
func (r *Resources) Served(ctx context.Context) (Served, error) {
	version, err := r.discovery.ServerVersionWithContext(ctx)
	if err != nil {
		return Served{}, unanswered(err)
	}
	groups, lists, err := r.discovery.ServerGroupsAndResourcesWithContext(ctx)
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return Served{}, unanswered(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for gvk := range r.learned {
		lists = append(lists, &metav1.APIResourceList{
			GroupVersion: gvk.GroupVersion().String(), APIResources: []metav1.APIResource{{Kind: gvk.Kind}},
		})
		groups = append(groups, &metav1.APIGroup{Name: gvk.Group, Versions: []metav1.GroupVersionForDiscovery{{GroupVersion: gvk.GroupVersion().String()}}})
	}
	return Served{Version: version.GitVersion, Groups: groups, Lists: lists}, nil
}
