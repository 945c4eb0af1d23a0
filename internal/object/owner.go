package object

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Groups under which units label what they own.
const (
	KustomizeGroup = "kustomize.toolkit.fluxcd.io"
	HelmGroup      = "helm.toolkit.fluxcd.io"
)

// Owner names the unit that an object belongs to.
type Owner struct {
	// Group is the API group of the unit, and the prefix of the labels.
	Group     string
	Name      string
	Namespace string
}

// Labels returns the labels that mark an object as the owner's.
func (o Owner) Labels() map[string]string {
	return map[string]string{o.Group + "/name": o.Name, o.Group + "/namespace": o.Namespace}
}

// SetOwner labels u as owned by o.
func SetOwner(u *unstructured.Unstructured, o Owner) {
	labels := u.GetLabels()
	if labels == nil {
		labels = make(map[string]string, 2)
	}
	maps.Copy(labels, o.Labels())
	u.SetLabels(labels)
}

// OwnerOf returns the owner that labels name, and false where they name none
// of the group.
func OwnerOf(labels map[string]string, group string) (Owner, bool) {
	name, ok := labels[group+"/name"]
	if !ok || name == "" {
		return Owner{}, false
	}
	return Owner{Group: group, Name: name, Namespace: labels[group+"/namespace"]}, true
}
