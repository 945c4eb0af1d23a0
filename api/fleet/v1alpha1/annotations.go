package v1alpha1

// Annotations of the fleet's kinds.
const (
	// ApprovedPlanAnnotation approves, by digests with commas between them: on a Placement, that it leaves
	// the clusters which its condition names; on a FleetCluster, deletions that wait there.
	ApprovedPlanAnnotation = "fleet.bowline.dev/approved-plan"
	// LostAnnotation, "true" on a FleetCluster that is being deleted, says that its member is gone and
	// need not be waited for.
	LostAnnotation = "fleet.bowline.dev/lost"
	// AgentAnnotation is the hub's, on a FleetCluster: the digest of the agent's manifests that it installed there last.
	AgentAnnotation = "fleet.bowline.dev/agent"
	// CopiedAnnotation is the link's, on the member's own copy of its ClusterAssignment: the fingerprint of the spec that it wrote. A
	// copy that has another one was changed by somebody else.
	CopiedAnnotation = "fleet.bowline.dev/copied"
	// HeardAnnotation is the link's, on the same copy: uid and generation of the hub's ClusterAssignment that it was copied from,
	// with a slash between them. A hub that tells an earlier generation was restored from a backup.
	HeardAnnotation = "fleet.bowline.dev/heard"
)

// LeaveFinalizer keeps a FleetCluster until its member has left the fleet.
const LeaveFinalizer = "fleet.bowline.dev/leave"

// AgentFinalizer keeps a FleetCluster until the hub has taken away the agent that it installed on a cluster which
// stays.
const AgentFinalizer = "fleet.bowline.dev/agent"

// ProvisionFinalizer keeps a FleetCluster until what was rendered for it is deleted, and with it the cluster.
const ProvisionFinalizer = "fleet.bowline.dev/provision"
