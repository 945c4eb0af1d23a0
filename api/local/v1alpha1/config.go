package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LocalConfig is what a simulated node needs to join its cluster: nothing, said in the way
// that Cluster API waits for.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=cluster-api
// +kubebuilder:metadata:labels={"cluster.x-k8s.io/v1beta2=v1alpha1","clusterctl.cluster.x-k8s.io="}
type LocalConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec LocalConfigSpec `json:"spec,omitempty"`
	// +optional
	Status LocalConfigStatus `json:"status,omitempty"`
}

// LocalConfigSpec has nothing to say.
type LocalConfigSpec struct{}

// LocalConfigStatus names the Secret that is made.
type LocalConfigStatus struct {
	// +optional
	Initialization ConfigInitialization `json:"initialization,omitempty,omitzero"`
	// +optional
	DataSecretName string `json:"dataSecretName,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ConfigInitialization is how a bootstrap provider says that it is done.
type ConfigInitialization struct {
	// +optional
	DataSecretCreated *bool `json:"dataSecretCreated,omitempty"`
}

// GetConditions implements the conditions of Cluster API.
func (c *LocalConfig) GetConditions() []metav1.Condition { return c.Status.Conditions }

// SetConditions implements the conditions of Cluster API.
func (c *LocalConfig) SetConditions(to []metav1.Condition) { c.Status.Conditions = to }

// LocalConfigList is a list of LocalConfigs.
//
// +kubebuilder:object:root=true
type LocalConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LocalConfig `json:"items"`
}

// LocalConfigTemplate is what LocalConfigs are made from.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=cluster-api
// +kubebuilder:metadata:labels={"cluster.x-k8s.io/v1beta2=v1alpha1","clusterctl.cluster.x-k8s.io="}
type LocalConfigTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec LocalConfigTemplateSpec `json:"spec"`
}

// LocalConfigTemplateSpec holds the template.
type LocalConfigTemplateSpec struct {
	Template LocalConfigTemplateResource `json:"template"`
}

// LocalConfigTemplateResource is a LocalConfig to be.
type LocalConfigTemplateResource struct {
	// +optional
	Spec LocalConfigSpec `json:"spec,omitempty"`
}

// LocalConfigTemplateList is a list of LocalConfigTemplates.
//
// +kubebuilder:object:root=true
type LocalConfigTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LocalConfigTemplate `json:"items"`
}
