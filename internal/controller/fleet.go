package controller

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/admission"
	"github.com/bowline-dev/bowline/internal/fleet/hub"
	fleetlink "github.com/bowline-dev/bowline/internal/fleet/link"
)

// registerFleet makes the engine a hub, where the cluster has the kinds that this takes.
func (e *engine) registerFleet(ctx context.Context) error {
	for kind, list := range map[string]client.ObjectList{
		fleetv1.FleetClusterKind: &fleetv1.FleetClusterList{}, fleetv1.PlacementKind: &fleetv1.PlacementList{},
		fleetv1.ClusterTemplateKind: &fleetv1.ClusterTemplateList{}, fleetv1.ClusterAssignmentKind: &fleetv1.ClusterAssignmentList{}, fleetv1.ClusterReportKind: &fleetv1.ClusterReportList{},
	} {
		if there, err := e.serves(ctx, kind, list); err != nil || !there {
			return err
		}
	}
	for _, register := range []func() error{
		e.registerHub,
		e.registerEnrolment,
		func() error { return e.registerProfiles(ctx) },
		e.registerPush,
		e.registerAdmission,
		func() error { return e.registerProvision(ctx) },
	} {
		if err := register(); err != nil {
			return err
		}
	}
	return nil
}

// registerAdmission has the hub judge what is written, where it is given an address for that.
func (e *engine) registerAdmission() error {
	if orOff(e.options.Webhooks.Listen) == "0" {
		return nil
	}
	return admission.Register(e.mgr, admission.Options{})
}

// fleetTiming is how fast the rooms of the fleet do what they do by themselves. A zero field means what the rooms say.
type fleetTiming struct {
	// lease is how long a hub waits for a member's Lease, link what the members that it pushes to do, and pause how long
	// it waits at most before it tries one of them again.
	lease, pause time.Duration
	link         fleetlink.Timing
}

func (e *engine) registerHub() error {
	return hub.Register(e.mgr, hub.Options{Sources: slices.Collect(maps.Keys(e.sources)), Lease: cmp.Or(e.options.Hub.Lease, e.options.fleet.lease)})
}
