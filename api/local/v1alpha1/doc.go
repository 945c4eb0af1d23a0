// Package v1alpha1 is the room of the local provider's kinds: what Cluster API calls
// infrastructure, control plane and bootstrap, for clusters that run on the machine
// of their hub. Their fields are those of Cluster API's contract v1beta2.
//
// +kubebuilder:object:generate=true
// +groupName=infrastructure.cluster.x-k8s.io
package v1alpha1
