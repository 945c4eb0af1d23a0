package v1alpha1

import (
	"github.com/fluxcd/pkg/apis/meta"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FleetCluster stands for one member cluster. Its labels are what Placements
// select by.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=fc,categories=fleet
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.agent.mode`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.kubernetesVersion`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Units",type=string,JSONPath=`.status.units.summary`
// +kubebuilder:printcolumn:name="Seen",type=date,JSONPath=`.status.lastSeen`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Status",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name also names the cluster in labels: at most 63 characters"
type FleetCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec FleetClusterSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status FleetClusterStatus `json:"status,omitempty"`
}

// FleetClusterSpec says how a cluster comes to be, and what it syncs.
//
// +kubebuilder:validation:XValidation:rule="[has(self.template), has(self.kubeConfig), has(self.join)].filter(x, x).size() == 1",message="exactly one of template, kubeConfig and join says how the cluster comes to be"
// +kubebuilder:validation:XValidation:rule="!has(self.join) || !has(self.agent) || self.agent.mode != 'Push'",message="a cluster that joins by itself has an agent: agent.mode has to be Pull, or name its kubeConfig"
type FleetClusterSpec struct {
	// Template is what the cluster is made from.
	// +optional
	Template *TemplateReference `json:"template,omitempty"`
	// KubeConfig reaches a cluster that somebody else made.
	// +optional
	KubeConfig *KubeConfigReference `json:"kubeConfig,omitempty"`
	// Join lets a cluster join that the hub cannot reach, or need not.
	// +optional
	Join *JoinSpec `json:"join,omitempty"`
	// Sync is what the cluster delivers from Git besides what is placed on it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Sync []SyncSpec `json:"sync,omitempty"`
	// Agent says where the engine for the cluster runs.
	// +optional
	// +kubebuilder:default={}
	Agent AgentSpec `json:"agent,omitempty"`
	// DeletionPolicy says what becomes of what was delivered to a cluster that is not
	// deleted with its FleetCluster: Delete takes it away, Orphan leaves it.
	// +optional
	// +kubebuilder:validation:Enum=Delete;Orphan
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
	// Suspend leaves the cluster and what runs on it as they are.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// DeletionPolicy says what becomes of something whose owner goes.
type DeletionPolicy string

// The deletion policies.
const (
	DeletionPolicyDelete DeletionPolicy = "Delete"
	DeletionPolicyOrphan DeletionPolicy = "Orphan"
)

// TemplateReference names a ClusterTemplate of the same namespace.
type TemplateReference struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Parameters are checked against the template's schema.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Parameters *apiextensionsv1.JSON `json:"parameters,omitempty"`
	// ServiceAccountName is in whose name the objects of the cluster are delivered, of the same
	// namespace; needed outside the hub's platform namespaces.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
}

// KubeConfigReference names a Secret of the same namespace with a kubeconfig. It is
// read again whenever it changes.
type KubeConfigReference struct {
	// SecretRef names the Secret; without a key those of Cluster API (`value`) and of
	// the toolkit (`value.yaml`) are tried.
	SecretRef meta.SecretKeyReference `json:"secretRef"`
}

// JoinSpec lets a cluster join by itself; see `bowline join`.
type JoinSpec struct{}

// AgentMode says where the engine for a cluster runs.
type AgentMode string

// The agent modes.
const (
	// AgentPull is an engine on the cluster that fetches from Git itself.
	AgentPull AgentMode = "Pull"
	// AgentPush is an engine on the hub that delivers through a kubeconfig.
	AgentPush AgentMode = "Push"
)

// AgentSpec says where the engine for the cluster runs.
type AgentSpec struct {
	// +optional
	// +kubebuilder:validation:Enum=Pull;Push
	// +kubebuilder:default=Pull
	Mode AgentMode `json:"mode,omitempty"`
}

// SyncSpec is one folder of one source that the cluster delivers: a Kustomization on
// the member. Strings may hold expressions such as `${cluster.name}`.
type SyncSpec struct {
	// Name is that of the Kustomization on the member.
	// +kubebuilder:default=sync
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// Source names the source, of the FleetCluster's namespace on the hub.
	Source SourceReference `json:"source"`
	// Branch replaces the branch of a GitRepository: a branch for each cluster.
	// +optional
	Branch string `json:"branch,omitempty"`
	// Path is the folder; a folder for each cluster unless it says otherwise.
	// +optional
	// +kubebuilder:default="clusters/${cluster.name}"
	Path string `json:"path,omitempty"`
	// Namespace is where the Kustomization lives on the member, and so whose rights it
	// has: a namespace for each team or environment. It is made where it is missing.
	// +optional
	// +kubebuilder:default=bowline-system
	Namespace string `json:"namespace,omitempty"`
	// ServiceAccountName is in whose name it is delivered; needed outside the member's
	// platform namespaces.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Interval is how often the Kustomization is audited on the member.
	// +optional
	// +kubebuilder:default="10m"
	Interval metav1.Duration `json:"interval,omitempty"`
	// Prune removes what went from the source, and all of it when the cluster lets go: it has left when
	// that is gone.
	// +optional
	// +kubebuilder:default=true
	Prune *bool `json:"prune,omitempty"`
	// Wait makes the unit ready only when all that it delivers is: of a folder that holds FleetClusters, when those are.
	// +optional
	Wait bool `json:"wait,omitempty"`
}

// SourceReference names a source of the same namespace.
type SourceReference struct {
	// +optional
	// +kubebuilder:validation:Enum=GitRepository;OCIRepository;Bucket
	// +kubebuilder:default=GitRepository
	Kind string `json:"kind,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// Phase is a summary of the conditions for people; programs read the conditions.
type Phase string

// The phases of a FleetCluster.
const (
	PhasePending      Phase = "Pending"
	PhaseProvisioning Phase = "Provisioning"
	PhaseJoining      Phase = "Joining"
	PhaseSyncing      Phase = "Syncing"
	PhaseReady        Phase = "Ready"
	PhaseFailing      Phase = "Failing"
	PhaseUnreachable  Phase = "Unreachable"
	PhaseDeleting     Phase = "Deleting"
)

// The conditions of a FleetCluster besides Ready, in the order in which a cluster
// comes to them.
const (
	// RenderedCondition: the template gave objects.
	RenderedCondition = "Rendered"
	// ProvisionedCondition: there is a control plane that answers.
	ProvisionedCondition = "Provisioned"
	// JoinedCondition: an engine for this very cluster is bound to the hub.
	JoinedCondition = "Joined"
	// ReachableCondition: the engine's Lease is renewed.
	ReachableCondition = "Reachable"
	// UnitsReadyCondition: all units of the cluster are ready.
	UnitsReadyCondition = "UnitsReady"
)

// The reasons of these conditions, besides those of the toolkit.
const (
	TemplateNotFoundReason   = "TemplateNotFound"
	InvalidParametersReason  = "InvalidParameters"
	RenderFailedReason       = "RenderFailed"
	NothingRenderedReason    = "NothingRendered"
	RenderedReason           = "Rendered"
	ProvisioningReason       = "Provisioning"
	ProvisioningFailedReason = "ProvisioningFailed"
	ProvisionedReason        = "Provisioned"
	NothingToProvisionReason = "NothingToProvision"
	KubeConfigInvalidReason  = "KubeConfigInvalid"
	UnreachableReason        = "Unreachable"
	AwaitingJoinReason       = "AwaitingJoin"
	InstallFailedReason      = "InstallFailed"
	IdentityConflictReason   = "IdentityConflict"
	JoinedReason             = "Joined"
	LeaseExpiredReason       = "LeaseExpired"
	LeaseRenewedReason       = "LeaseRenewed"
	AwaitingReportReason     = "AwaitingReport"
	ProgressingReason        = "Progressing"
	UnitsFailedReason        = "UnitsFailed"
	UnitsReadyReason         = "UnitsReady"
	DeletingReason           = "Deleting"
	// InvalidTemplateReason is one of Ready of a ClusterTemplate.
	InvalidTemplateReason = "InvalidTemplate"
)

// FleetClusterStatus is what the hub knows of the cluster.
type FleetClusterStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Endpoint is the URL of the cluster's API server.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// KubernetesVersion is what the API server says of itself.
	// +optional
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// Provider is the kind of the infrastructure, such as AWSManagedCluster.
	// +optional
	Provider string `json:"provider,omitempty"`
	// +optional
	Nodes int32 `json:"nodes,omitempty"`
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
	// ClusterID is the uid of the cluster's kube-system namespace.
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// Incarnation is the one that may speak for the cluster; see the certificate's name.
	// +optional
	Incarnation string `json:"incarnation,omitempty"`
	// LastSeen is when the hub last saw the Lease renewed, by its own clock, to the minute.
	// +optional
	LastSeen *metav1.Time `json:"lastSeen,omitempty"`
	// Units rolls up all units of the cluster.
	// +optional
	Units *UnitCounts `json:"units,omitempty"`
	// Sources are the revisions that the cluster's sources are at.
	// +optional
	// +listType=atomic
	Sources []SourceRevision `json:"sources,omitempty"`
	// Fleet rolls up the clusters that this one manages, where it is a hub itself.
	// +optional
	Fleet *FleetCounts `json:"fleet,omitempty"`
	// Assignment is the digest of the assignment that was last reported as observed.
	// +optional
	Assignment string `json:"assignment,omitempty"`
}

// GetConditions implements the toolkit's conditions.Getter.
func (c *FleetCluster) GetConditions() []metav1.Condition { return c.Status.Conditions }

// SetConditions implements the toolkit's conditions.Setter.
func (c *FleetCluster) SetConditions(to []metav1.Condition) { c.Status.Conditions = to }

// FleetClusterList is a list of FleetClusters.
//
// +kubebuilder:object:root=true
type FleetClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FleetCluster `json:"items"`
}
