package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterTemplate says what a cluster is made from: parameters with a schema, and
// the objects that they become.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ct,categories=fleet
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Clusters",type=integer,JSONPath=`.status.clusters`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Status",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type ClusterTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterTemplateSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status ClusterTemplateStatus `json:"status,omitempty"`
}

// ClusterTemplateSpec holds the parameters and the objects.
type ClusterTemplateSpec struct {
	// Parameters is a structural OpenAPI v3 schema of type object, with defaults, as
	// in a CustomResourceDefinition. Without one there are no parameters.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Parameters *apiextensionsv1.JSON `json:"parameters,omitempty"`
	// Objects become those of the cluster, in the namespace of its FleetCluster.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +listType=atomic
	Objects []TemplateObject `json:"objects"`
}

// TemplateObject is one object, or none, or one for each item of a list.
type TemplateObject struct {
	// When is an expression; where it is false the object is left out.
	// +optional
	When string `json:"when,omitempty"`
	// ForEach is an expression that gives a list; the object is made once for each item,
	// which its expressions know as `item`, and its place in the list as `index`.
	// +optional
	ForEach string `json:"forEach,omitempty"`
	// Template is the object. Its strings may hold expressions in `${ }`.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Template apiextensionsv1.JSON `json:"template"`
}

// ClusterTemplateStatus says whether the template can be used.
type ClusterTemplateStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Clusters is how many FleetClusters are made from it.
	// +optional
	Clusters int32 `json:"clusters,omitempty"`
}

// GetConditions implements the toolkit's conditions.Getter.
func (t *ClusterTemplate) GetConditions() []metav1.Condition { return t.Status.Conditions }

// SetConditions implements the toolkit's conditions.Setter.
func (t *ClusterTemplate) SetConditions(to []metav1.Condition) { t.Status.Conditions = to }

// ClusterTemplateList is a list of ClusterTemplates.
//
// +kubebuilder:object:root=true
type ClusterTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterTemplate `json:"items"`
}
