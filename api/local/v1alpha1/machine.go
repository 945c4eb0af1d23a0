package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LocalMachine is a simulated node of a cluster on this machine.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=cluster-api
// +kubebuilder:metadata:labels={"cluster.x-k8s.io/v1beta2=v1alpha1","clusterctl.cluster.x-k8s.io="}
// +kubebuilder:printcolumn:name="ProviderID",type=string,JSONPath=`.spec.providerID`
// +kubebuilder:printcolumn:name="Provisioned",type=boolean,JSONPath=`.status.initialization.provisioned`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LocalMachine struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec LocalMachineSpec `json:"spec,omitempty"`
	// +optional
	Status LocalMachineStatus `json:"status,omitempty"`
}

// LocalMachineSpec says how large the node claims to be.
type LocalMachineSpec struct {
	// ProviderID names the machine to Cluster API; the provider sets it.
	// +optional
	ProviderID string `json:"providerID,omitempty"`
	// CPU is the number of processors that the node claims to have, as a quantity.
	// +optional
	// +kubebuilder:default="8"
	CPU string `json:"cpu,omitempty"`
	// Memory is what the node claims to have, as a quantity.
	// +optional
	// +kubebuilder:default="32Gi"
	Memory string `json:"memory,omitempty"`
	// Labels and taints of the node are those of its Machine; Zone is its failure domain.
	// +optional
	Zone string `json:"zone,omitempty"`
}

// LocalMachineStatus says that the node is there.
type LocalMachineStatus struct {
	// +optional
	Initialization Initialization `json:"initialization,omitempty,omitzero"`
	// +optional
	// +listType=atomic
	Addresses []MachineAddress `json:"addresses,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// MachineAddress is an address of a node, with the types of Cluster API.
type MachineAddress struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// The condition of a LocalMachine, and its reasons.
const (
	ReadyCondition = "Ready"

	NodeReadyReason        = "NodeReady"
	AwaitingClusterReason  = "AwaitingControlPlane"
	AwaitingBootstrap      = "AwaitingBootstrapData"
	NodeFailedReason       = "NodeFailed"
	BootstrapWrittenReason = "BootstrapDataWritten"
)

// GetConditions implements the conditions of Cluster API.
func (m *LocalMachine) GetConditions() []metav1.Condition { return m.Status.Conditions }

// SetConditions implements the conditions of Cluster API.
func (m *LocalMachine) SetConditions(to []metav1.Condition) { m.Status.Conditions = to }

// LocalMachineList is a list of LocalMachines.
//
// +kubebuilder:object:root=true
type LocalMachineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LocalMachine `json:"items"`
}

// LocalMachineTemplate is what LocalMachines are made from.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=cluster-api
// +kubebuilder:metadata:labels={"cluster.x-k8s.io/v1beta2=v1alpha1","clusterctl.cluster.x-k8s.io="}
type LocalMachineTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec LocalMachineTemplateSpec `json:"spec"`
}

// LocalMachineTemplateSpec holds the template.
type LocalMachineTemplateSpec struct {
	Template LocalMachineTemplateResource `json:"template"`
}

// LocalMachineTemplateResource is a LocalMachine to be.
type LocalMachineTemplateResource struct {
	// +optional
	Spec LocalMachineSpec `json:"spec,omitempty"`
}

// LocalMachineTemplateList is a list of LocalMachineTemplates.
//
// +kubebuilder:object:root=true
type LocalMachineTemplateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LocalMachineTemplate `json:"items"`
}
