package v1alpha1

// PivotMark is the ConfigMap, in MemberNamespace, that says of a cluster that its management plane moves: while it is
// there, no engine acts on the cluster. On the hub that was left it stays.
const PivotMark = "bowline-pivot"

// The keys of the mark.
const (
	// PivotFrom and PivotTo name the clusters by the uid of their namespace kube-system.
	PivotFrom = "from"
	PivotTo   = "to"
	// PivotCluster is the FleetCluster that becomes the hub, as namespace/name.
	PivotCluster = "cluster"
	// PivotStage is how far it is.
	PivotStage = "stage"
)

// PivotStanding is the annotation by which an engine says on the mark that nothing of it runs any more.
const PivotStanding = "fleet.bowline.dev/standing"
