package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	fleetlink "github.com/bowline-dev/bowline/internal/fleet/link"
)

// registerLink adds what ties the cluster to its hub, where it has one.
func (e *engine) registerLink(ctx context.Context) error {
	if e.options.Membership == nil {
		return nil
	}
	if e.copies == nil {
		return &failure.Error{Op: "start the agent", Kind: failure.NotFound, Err: errors.New("the cluster does not know the fleet's kinds"),
			Remedy: "install the definitions: bowline crds | kubectl apply --server-side -f -"}
	}
	fleet, err := e.serves(ctx, fleetv1.FleetClusterKind, &fleetv1.FleetClusterList{})
	if err != nil {
		return err
	}
	server, err := discovery.NewDiscoveryClientForConfigAndClient(e.mgr.GetConfig(), e.mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("set up the link to the hub: %w", err)
	}
	l := fleetlink.New(fleetlink.Options{
		Membership: *e.options.Membership, Client: e.mgr.GetClient(), Direct: e.mgr.GetAPIReader(), Cache: e.mgr.GetCache(), Copies: e.copies,
		Version: func(ctx context.Context) (string, error) {
			raw, err := server.RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
			var v version.Info
			if err == nil {
				err = json.Unmarshal(raw, &v)
			}
			return v.GitVersion, err
		},
		Sources: slices.Sorted(maps.Keys(e.sources)), Releases: e.releases != nil, Fleet: fleet,
		Pending: e.pendingDeletions, Drifted: e.held.drifted, Log: e.log.WithName("link"),
	})
	before := e.held.changed
	e.held.changed = func() {
		before()
		l.Poke()
	}
	return e.mgr.Add(l)
}

// pendingDeletions is what waits for approval, as it is reported.
func (e *engine) pendingDeletions() []fleetv1.PendingDeletion {
	var all []fleetv1.PendingDeletion
	for _, p := range e.held.all() {
		all = append(all, fleetv1.PendingDeletion{Unit: p.unit.Kind + "/" + p.unit.Namespace + "/" + p.unit.Name, Plan: p.digest, Message: p.message})
	}
	return all
}
