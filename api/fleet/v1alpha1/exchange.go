package v1alpha1

import (
	"crypto/sha256"
	"fmt"
	"reflect"

	"github.com/fluxcd/pkg/apis/meta"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

// ClusterAssignment is all that one member is to run. The hub writes it; the member
// keeps a copy of its own.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ca,categories=fleet
// +kubebuilder:printcolumn:name="Units",type=integer,JSONPath=`.spec.unitCount`
// +kubebuilder:printcolumn:name="Digest",type=string,JSONPath=`.spec.digest`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterAssignment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterAssignmentSpec `json:"spec"`
	// Status is the member's, in its own copy.
	// +optional
	Status ClusterAssignmentStatus `json:"status,omitempty"`
}

// ClusterAssignmentSpec holds sources and units, each list in the order of its names.
type ClusterAssignmentSpec struct {
	// Incarnation is whom the assignment is for; an agent with another one must not
	// carry it out.
	Incarnation string `json:"incarnation,omitempty"`
	// Digest is that of what is to run: all fields below but the approvals. Reports name it.
	Digest string `json:"digest"`
	// UnitCount is how many units there are, for people.
	// +optional
	UnitCount int32 `json:"unitCount,omitempty"`
	// Sources are what the units refer to.
	// +optional
	// +listType=atomic
	Sources []AssignedSource `json:"sources,omitempty"`
	// Sync are the units that the FleetCluster syncs.
	// +optional
	// +listType=atomic
	Sync []AssignedUnit `json:"sync,omitempty"`
	// Placements are the units that are placed on the cluster.
	// +optional
	// +listType=atomic
	Placements []AssignedPlacement `json:"placements,omitempty"`
	// ApprovedPlans approve deletions that wait on the member; see PendingDeletion.
	// +optional
	// +listType=set
	ApprovedPlans []string `json:"approvedPlans,omitempty"`
	// Leave says that the member leaves the fleet.
	// +optional
	// +kubebuilder:validation:Enum=Delete;Orphan
	Leave DeletionPolicy `json:"leave,omitempty"`
}

// AssignedSource is a source as it is made on the member.
type AssignedSource struct {
	// Kind is one of the toolkit's kinds of sources.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Revision is the one that the hub pinned in the spec; empty where the kind
	// cannot be pinned.
	// +optional
	Revision string `json:"revision,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Spec apiextensionsv1.JSON `json:"spec"`
}

// AssignedPlacement is what one Placement brings to the cluster. On the member it is a
// Kustomization called placement-<name>, which delivers the units and is ready when they are.
type AssignedPlacement struct {
	Name string `json:"name"`
	// DependsOn names those of the assignment's placements that have to be ready first.
	// +optional
	// +listType=atomic
	DependsOn []string `json:"dependsOn,omitempty"`
	// +listType=atomic
	Units []AssignedUnit `json:"units"`
}

// AssignedUnit is a Kustomization or HelmRelease as it is made on the member.
type AssignedUnit struct {
	// +kubebuilder:validation:Enum=Kustomization;HelmRelease
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Spec apiextensionsv1.JSON `json:"spec"`
}

// ClusterAssignmentStatus says how far the member is with its copy.
type ClusterAssignmentStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Digest is that of the assignment which the member's units were last made from.
	// +optional
	Digest string `json:"digest,omitempty"`
}

// GetConditions implements the toolkit's conditions.Getter.
func (a *ClusterAssignment) GetConditions() []metav1.Condition { return a.Status.Conditions }

// SetConditions implements the toolkit's conditions.Setter.
func (a *ClusterAssignment) SetConditions(to []metav1.Condition) { a.Status.Conditions = to }

// HasLeft reports whether a member's copy tells it to leave, and nothing that was made of the copy is there any more.
func (a *ClusterAssignment) HasLeft() bool {
	c := apimeta.FindStatusCondition(a.Status.Conditions, meta.ReadyCondition)
	return a.Spec.Leave != "" && c != nil && c.Status == metav1.ConditionTrue && c.Reason == ReasonLeft && c.ObservedGeneration == a.Generation
}

// Same reports whether two assignments say the same, however the specs in them are written.
func (s *ClusterAssignmentSpec) Same(other *ClusterAssignmentSpec) bool {
	mine, err := s.value()
	if err != nil {
		return false
	}
	theirs, err := other.value()
	return err == nil && reflect.DeepEqual(mine, theirs)
}

// value is what the spec says, without how the specs in it are written.
func (s *ClusterAssignmentSpec) value() (value any, err error) {
	raw, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(raw, &value)
	}
	return value, err
}

// Fingerprint is a digest of what the spec says, however the specs in it are written. That of one which an API server returns counts: it
// may add what its definition has by default, and leave out what that does not know.
func (s *ClusterAssignmentSpec) Fingerprint() (string, error) {
	var raw []byte
	value, err := s.value()
	if err == nil {
		raw, err = json.Marshal(value) // maps in the order of their keys
	}
	if err != nil {
		return "", fmt.Errorf("write the spec of a ClusterAssignment: %w", err)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)), nil
}

// WasCopied reports whether the spec of a member's copy is the one that its link to the hub wrote last.
func (a *ClusterAssignment) WasCopied() bool {
	noted := a.Annotations[CopiedAnnotation]
	if noted == "" {
		return false
	}
	has, err := a.Spec.Fingerprint()
	return err == nil && has == noted
}

// ClusterAssignmentList is a list of ClusterAssignments.
//
// +kubebuilder:object:root=true
type ClusterAssignmentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterAssignment `json:"items"`
}

// ClusterReport is what runs on one member. The hub makes it, empty, and the member's
// agent writes its status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=cr,categories=fleet
// +kubebuilder:printcolumn:name="Units",type=string,JSONPath=`.status.units.summary`
// +kubebuilder:printcolumn:name="Digest",type=string,JSONPath=`.status.assignment`
// +kubebuilder:printcolumn:name="Reported",type=date,JSONPath=`.status.reportedAt`
type ClusterReport struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status ClusterReportStatus `json:"status,omitempty"`
}

// ClusterReportStatus is written as a whole, when something in it changed.
type ClusterReportStatus struct {
	// Assignment is the digest of the assignment that the rest was observed at; empty as
	// long as the member has not carried one out.
	// +optional
	Assignment string `json:"assignment,omitempty"`
	// ReportedAt is when it was written, by the agent's clock.
	// +optional
	ReportedAt metav1.Time `json:"reportedAt,omitempty"`
	// +optional
	Cluster ClusterFacts `json:"cluster,omitempty"`
	// Units counts all units of the cluster.
	// +optional
	Units UnitCounts `json:"units,omitempty"`
	// Assigned are the units of the assignment, those of Sync first and in its order, as far
	// as there is room.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Assigned []UnitReport `json:"assigned,omitempty"`
	// Sources are the revisions that the cluster's sources are at.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Sources []SourceRevision `json:"sources,omitempty"`
	// Fleet rolls up the clusters that this one manages, where it is a hub itself.
	// +optional
	Fleet *FleetCounts `json:"fleet,omitempty"`
	// Problem is what keeps the agent from carrying out its assignment.
	// +optional
	Problem string `json:"problem,omitempty"`
	// Pending are deletions that wait for approval.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Pending []PendingDeletion `json:"pending,omitempty"`
	// Left says that the member has left the fleet.
	// +optional
	Left bool `json:"left,omitempty"`
}

// PendingDeletion is a plan of a unit whose deletions wait for approval.
type PendingDeletion struct {
	// Unit is Kind/namespace/name.
	Unit string `json:"unit"`
	// Plan is the digest of the deletions, with which they are approved.
	Plan string `json:"plan"`
	// Message names what would go.
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message"`
}

// ClusterFacts is what the agent knows of its cluster.
type ClusterFacts struct {
	// ID is the uid of the namespace kube-system.
	// +optional
	ID string `json:"id,omitempty"`
	// +optional
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
	// +optional
	Nodes int32 `json:"nodes,omitempty"`
}

// UnitState is the state of a unit, in one word.
type UnitState string

// The states of a unit.
const (
	UnitReady       UnitState = "Ready"
	UnitProgressing UnitState = "Progressing"
	UnitFailed      UnitState = "Failed"
	UnitSuspended   UnitState = "Suspended"
)

// UnitReport is one unit.
type UnitReport struct {
	// Placement is the one that it is from; empty for what the FleetCluster syncs.
	// +optional
	Placement string    `json:"placement,omitempty"`
	Kind      string    `json:"kind"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	State     UnitState `json:"state"`
	// Revision is the one that was last applied.
	// +optional
	Revision string `json:"revision,omitempty"`
	// Reason and Message are those of its Ready condition, while that is not true.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// UnitCounts is how many units are in which state.
type UnitCounts struct {
	Total       int32 `json:"total"`
	Ready       int32 `json:"ready"`
	Progressing int32 `json:"progressing"`
	Failed      int32 `json:"failed"`
	Suspended   int32 `json:"suspended"`
	// Drifted is how many of them have objects that somebody else keeps changing.
	Drifted int32 `json:"drifted"`
	// Summary is ready of total, for people: 18/20.
	// +optional
	Summary string `json:"summary,omitempty"`
}

// SourceRevision is the revision that a source is at.
type SourceRevision struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Revision  string `json:"revision"`
}

// FleetCounts rolls up a fleet and all the fleets below it.
type FleetCounts struct {
	// Clusters counts all clusters below, at whatever depth.
	Clusters int32 `json:"clusters"`
	Ready    int32 `json:"ready"`
	// Unreachable is how many have not been seen for a while.
	Unreachable int32 `json:"unreachable"`
	// Levels is how many levels there are below: 1 where none of the clusters is a hub.
	Levels int32 `json:"levels"`
	// Units counts all units of these clusters.
	Units UnitCounts `json:"units"`
	// Members are these clusters as far as there is room, those first that are not ready.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Members []FleetMember `json:"members,omitempty"`
}

// FleetMember is a cluster of a fleet below.
type FleetMember struct {
	// Name is that of its FleetCluster; of one that is deeper below, after those of the clusters that it is below of, with
	// slashes between them.
	Name string `json:"name"`
	// Namespace is that of its FleetCluster.
	Namespace string `json:"namespace"`
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Ready says whether its condition of that name is true.
	Ready bool `json:"ready"`
	// Units is how many of its units are ready, of how many: 18/20.
	// +optional
	Units string `json:"units,omitempty"`
	// Message is why it is not ready.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// ClusterReportList is a list of ClusterReports.
//
// +kubebuilder:object:root=true
type ClusterReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterReport `json:"items"`
}
