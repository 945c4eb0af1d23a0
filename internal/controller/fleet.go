package controller

import (
	"context"
	"maps"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/admission"
	"github.com/bowline-dev/bowline/internal/fleet/hub"
)

// registerFleet makes the engine a hub, where the cluster has the kinds that this takes.
func (e *engine) registerFleet(ctx context.Context) error {
	for kind, list := range map[string]client.ObjectList{
		fleetv1.FleetClusterKind: &fleetv1.FleetClusterList{}, fleetv1.PlacementKind: &fleetv1.PlacementList{},
		fleetv1.ClusterAssignmentKind: &fleetv1.ClusterAssignmentList{}, fleetv1.ClusterReportKind: &fleetv1.ClusterReportList{},
	} {
		if there, err := e.serves(ctx, kind, list); err != nil || !there {
			return err
		}
	}
	for _, register := range []func() error{
		func() error { return hub.Register(e.mgr, hub.Options{Sources: slices.Collect(maps.Keys(e.sources))}) },
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
