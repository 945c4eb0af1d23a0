package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of all kinds of this package.
var GroupVersion = schema.GroupVersion{Group: "fleet.bowline.dev", Version: "v1alpha1"}

// The kinds, as they are written in manifests.
const (
	FleetClusterKind      = "FleetCluster"
	ClusterTemplateKind   = "ClusterTemplate"
	PlacementKind         = "Placement"
	ClusterAssignmentKind = "ClusterAssignment"
	ClusterReportKind     = "ClusterReport"
)

// AddToScheme registers the kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&FleetCluster{}, &FleetClusterList{},
		&ClusterTemplate{}, &ClusterTemplateList{},
		&Placement{}, &PlacementList{},
		&ClusterAssignment{}, &ClusterAssignmentList{},
		&ClusterReport{}, &ClusterReportList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
