// Package v1alpha1 is the room of Bowline's own kinds: clusters, the templates
// they are made from, what is placed on them, and the pair that a hub and its
// agents exchange. What has a standard is not here: units and sources are the
// toolkit's, machines are Cluster API's.
//
// +kubebuilder:object:generate=true
// +groupName=fleet.bowline.dev
package v1alpha1
