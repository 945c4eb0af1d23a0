package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LocalCluster is the infrastructure of a cluster on this machine: nothing but the machine
// itself, so it is there at once.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=cluster-api
// +kubebuilder:metadata:labels={"cluster.x-k8s.io/v1beta2=v1alpha1","clusterctl.cluster.x-k8s.io="}
// +kubebuilder:printcolumn:name="Provisioned",type=boolean,JSONPath=`.status.initialization.provisioned`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LocalCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec LocalClusterSpec `json:"spec,omitempty"`
	// +optional
	Status LocalClusterStatus `json:"status,omitempty"`
}

// LocalClusterSpec has nothing to say: the control plane knows its endpoint.
type LocalClusterSpec struct{}

// LocalClusterStatus says that it is there.
type LocalClusterStatus struct {
	// +optional
	Initialization Initialization `json:"initialization,omitempty,omitzero"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Initialization is how infrastructure says that it is there.
type Initialization struct {
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// GetConditions implements the conditions of Cluster API.
func (c *LocalCluster) GetConditions() []metav1.Condition { return c.Status.Conditions }

// SetConditions implements the conditions of Cluster API.
func (c *LocalCluster) SetConditions(to []metav1.Condition) { c.Status.Conditions = to }

// LocalClusterList is a list of LocalClusters.
//
// +kubebuilder:object:root=true
type LocalClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LocalCluster `json:"items"`
}

// LocalControlPlane is an embedded control plane: etcd, API server, controller manager and
// scheduler in one process.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=cluster-api
// +kubebuilder:metadata:labels={"cluster.x-k8s.io/v1beta2=v1alpha1","clusterctl.cluster.x-k8s.io="}
// +kubebuilder:printcolumn:name="Initialized",type=boolean,JSONPath=`.status.initialization.controlPlaneInitialized`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.controlPlaneEndpoint.host`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LocalControlPlane struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec LocalControlPlaneSpec `json:"spec,omitempty"`
	// +optional
	Status LocalControlPlaneStatus `json:"status,omitempty"`
}

// LocalControlPlaneSpec says which version it is to behave like.
type LocalControlPlaneSpec struct {
	// Version is the Kubernetes version, such as v1.36.0. There is one build; it behaves like
	// its own minor version or the one before, as the API server's emulation allows.
	// +optional
	Version string `json:"version,omitempty"`
	// Management says that clusters are made from this one: Cluster API and a provider run for it. Where it is
	// taken back they end, and the clusters stay as they are.
	// +optional
	Management bool `json:"management,omitempty"`
	// ControlPlaneEndpoint is where it answers; the provider sets it.
	// +optional
	ControlPlaneEndpoint Endpoint `json:"controlPlaneEndpoint,omitempty,omitzero"`
}

// Endpoint is a host and a port.
type Endpoint struct {
	// +optional
	Host string `json:"host,omitempty"`
	// +optional
	Port int32 `json:"port,omitempty"`
}

// LocalControlPlaneStatus says how it is.
type LocalControlPlaneStatus struct {
	// +optional
	Initialization ControlPlaneInitialization `json:"initialization,omitempty,omitzero"`
	// Version is the one that it behaves like.
	// +optional
	Version string `json:"version,omitempty"`
	// ExternalManagedControlPlane is always true: no Machine stands for it.
	// +optional
	ExternalManagedControlPlane *bool `json:"externalManagedControlPlane,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ControlPlaneInitialization is how a control plane says that it takes requests.
type ControlPlaneInitialization struct {
	// +optional
	ControlPlaneInitialized *bool `json:"controlPlaneInitialized,omitempty"`
}

// The condition of a LocalControlPlane, and its reasons.
const (
	AvailableCondition = "Available"

	RunningReason            = "Running"
	StartFailedReason        = "StartFailed"
	VersionUnavailableReason = "VersionUnavailable"
)

// GetConditions implements the conditions of Cluster API.
func (c *LocalControlPlane) GetConditions() []metav1.Condition { return c.Status.Conditions }

// SetConditions implements the conditions of Cluster API.
func (c *LocalControlPlane) SetConditions(to []metav1.Condition) { c.Status.Conditions = to }

// LocalControlPlaneList is a list of LocalControlPlanes.
//
// +kubebuilder:object:root=true
type LocalControlPlaneList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LocalControlPlane `json:"items"`
}
