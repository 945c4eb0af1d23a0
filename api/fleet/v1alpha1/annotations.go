package v1alpha1

// Annotations of the fleet's kinds.
const (
	// ApprovedPlanAnnotation approves, by digests with commas between them: on a Placement, that it leaves
	// the clusters which its condition names; on a FleetCluster, deletions that wait there.
	ApprovedPlanAnnotation = "fleet.bowline.dev/approved-plan"
	// LostAnnotation, "true" on a FleetCluster that is being deleted, says that its member is gone and
	// need not be waited for.
	LostAnnotation = "fleet.bowline.dev/lost"
)

// LeaveFinalizer keeps a FleetCluster until its member has left the fleet.
const LeaveFinalizer = "fleet.bowline.dev/leave"
