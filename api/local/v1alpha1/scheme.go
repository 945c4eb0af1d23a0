package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of all kinds of this package.
var GroupVersion = schema.GroupVersion{Group: "infrastructure.cluster.x-k8s.io", Version: "v1alpha1"}

// The kinds that controllers serve; templates are read by Cluster API.
const (
	LocalClusterKind         = "LocalCluster"
	LocalControlPlaneKind    = "LocalControlPlane"
	LocalMachineKind         = "LocalMachine"
	LocalMachineTemplateKind = "LocalMachineTemplate"
	LocalConfigKind          = "LocalConfig"
	LocalConfigTemplateKind  = "LocalConfigTemplate"
)

// AddToScheme registers the kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&LocalCluster{}, &LocalClusterList{},
		&LocalControlPlane{}, &LocalControlPlaneList{},
		&LocalMachine{}, &LocalMachineList{},
		&LocalMachineTemplate{}, &LocalMachineTemplateList{},
		&LocalConfig{}, &LocalConfigList{},
		&LocalConfigTemplate{}, &LocalConfigTemplateList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
