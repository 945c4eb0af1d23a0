package v1alpha1

// What a member keeps of the fleet that it belongs to.
const (
	// MemberNamespace is where its copy of the assignment is, and what delivers it.
	MemberNamespace = "bowline-system"
	// LabelSelf is "true" on the member's own copy of its ClusterAssignment. One that the
	// member, being a hub, wrote for another cluster does not have it.
	LabelSelf = "fleet.bowline.dev/self"
	// LabelMadeBy is on each ExternalArtifact and Kustomization that the engine makes of one of
	// these kinds, and says of which.
	LabelMadeBy = "fleet.bowline.dev/made-by"
	// MadeByClusterPrefix and the name of a FleetCluster is the value of LabelMadeBy on what its template became.
	MadeByClusterPrefix = "cluster."
	// MadeByAssignment is the value of LabelMadeBy on what is made of the member's copy.
	MadeByAssignment = "assignment"
)

// The names of the ExternalArtifacts and Kustomizations that a member makes of its copy.
const (
	// SourcesUnit delivers the assigned sources, and the namespaces of sources and units.
	SourcesUnit = "fleet-sources"
	// SyncUnit delivers the units of spec.sync.
	SyncUnit = "fleet-sync"
	// PlacementUnitPrefix and the name of a Placement is what delivers its units.
	PlacementUnitPrefix = "placement-"
)

// Reasons of the Ready condition of a member's copy.
const (
	// ReasonLeaving: what was assigned is being deleted, or let go.
	ReasonLeaving = "Leaving"
	// ReasonLeft: nothing that was made of the copy is there any more. Ready is true then.
	ReasonLeft = "Left"
	// ReasonNameTaken: somebody else's object has a name that the copy needs. Of a FleetCluster: its hub keeps its own copy under
	// that name.
	ReasonNameTaken = "NameTaken"
	// ReasonEdited: somebody else than the member's link to its hub wrote the spec. It is not carried out, and what was before goes on.
	ReasonEdited = "Edited"
)
