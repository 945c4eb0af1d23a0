package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Placement says which units run on which clusters.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pl,categories=fleet
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Clusters",type=integer,JSONPath=`.status.clusters`
// +kubebuilder:printcolumn:name="Current",type=integer,JSONPath=`.status.readyClusters`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Status",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 53",message="the name is part of names and labels on the members: at most 53 characters"
type Placement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec PlacementSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status PlacementStatus `json:"status,omitempty"`
}

// PlacementSpec holds the units and the clusters they are for.
type PlacementSpec struct {
	// Clusters selects FleetClusters of the same namespace by their labels. An empty
	// selector selects all of them.
	Clusters metav1.LabelSelector `json:"clusters"`
	// Namespace is where the units live on the members, and so whose rights they have.
	// It is made where it is missing.
	// +optional
	// +kubebuilder:default=bowline-system
	Namespace string `json:"namespace,omitempty"`
	// Units are what runs there.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +listType=map
	// +listMapKey=name
	Units []PlacementUnit `json:"units"`
	// DependsOn names Placements of the same namespace: on each cluster that has both,
	// the units of this one wait until all units of those are ready.
	// +optional
	// +listType=atomic
	DependsOn []PlacementReference `json:"dependsOn,omitempty"`
	// Overrides change units on some clusters; the last one wins.
	// +optional
	// +listType=atomic
	Overrides []PlacementOverride `json:"overrides,omitempty"`
	// Suspend leaves what is placed as it is: no cluster gets more, less or anything else.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// PlacementUnit is a Kustomization or a HelmRelease. The sources that it refers to are those
// of the Placement's namespace on the hub, and go to the members with it. Strings may hold
// expressions such as `${cluster.name}`.
//
// +kubebuilder:validation:XValidation:rule="has(self.kustomization) != has(self.helmRelease)",message="a unit is either a kustomization or a helmRelease"
type PlacementUnit struct {
	// Name is that of the unit on the members.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=53
	Name string `json:"name"`
	// When is an expression; the unit is left out on clusters where it is false.
	// +optional
	When string `json:"when,omitempty"`
	// Kustomization is the spec of a Kustomization.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Kustomization *apiextensionsv1.JSON `json:"kustomization,omitempty"`
	// HelmRelease is the spec of a HelmRelease.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	HelmRelease *apiextensionsv1.JSON `json:"helmRelease,omitempty"`
}

// PlacementReference names a Placement of the same namespace.
type PlacementReference struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// PlacementOverride changes one unit on some clusters.
//
// +kubebuilder:validation:XValidation:rule="has(self.clusters) || has(self.clusterNames)",message="an override names clusters, by clusters (labels) or clusterNames"
type PlacementOverride struct {
	// Clusters selects by label, among those of the Placement.
	// +optional
	Clusters *metav1.LabelSelector `json:"clusters,omitempty"`
	// ClusterNames names single clusters.
	// +optional
	// +listType=set
	ClusterNames []string `json:"clusterNames,omitempty"`
	// Unit is the name of the unit.
	// +kubebuilder:validation:MinLength=1
	Unit string `json:"unit"`
	// Patch is a JSON merge patch (RFC 7386) of the unit's spec.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Patch apiextensionsv1.JSON `json:"patch"`
}

// The condition of a Placement besides Ready, and the reasons.
const (
	// PlacedCondition: all selected clusters have the units in their assignment.
	PlacedCondition = "Placed"

	InvalidUnitReason     = "InvalidUnit"
	SourceNotReadyReason  = "SourceNotReady"
	AwaitingReason        = "AwaitingApproval"
	NoClusterReason       = "NoClusterMatches"
	ConflictReason        = "Conflict"
	PlacedReason          = "Placed"
	DependencyCycleReason = "DependencyCycle"
)

// PlacementStatus is how far the units have come.
type PlacementStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Clusters is on how many clusters the units are.
	// +optional
	Clusters int32 `json:"clusters,omitempty"`
	// ReadyClusters is how many of these report all of them as ready, from the assignment
	// that the hub gave last.
	// +optional
	ReadyClusters int32 `json:"readyClusters,omitempty"`
	// Failing names some clusters on which a unit failed, and why.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Failing []PlacementFailure `json:"failing,omitempty"`
	// LastHandledReconcileAt is the reconcile request that was last carried out.
	// +optional
	LastHandledReconcileAt string `json:"lastHandledReconcileAt,omitempty"`
}

// PlacementFailure is one unit that failed on one cluster.
type PlacementFailure struct {
	Cluster string `json:"cluster"`
	Unit    string `json:"unit"`
	Message string `json:"message"`
}

// GetConditions implements the toolkit's conditions.Getter.
func (p *Placement) GetConditions() []metav1.Condition { return p.Status.Conditions }

// SetConditions implements the toolkit's conditions.Setter.
func (p *Placement) SetConditions(to []metav1.Condition) { p.Status.Conditions = to }

// PlacementList is a list of Placements.
//
// +kubebuilder:object:root=true
type PlacementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Placement `json:"items"`
}
