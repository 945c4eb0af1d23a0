package object

import (
	"slices"
	"testing"
)

func TestStage(t *testing.T) {
	tests := []struct {
		name, reason string
		id           ID
		want         int
	}{
		{"crd", "others are of the kind that it defines", ID{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "x"}, StageDefinitions},
		{"namespace", "others live in it, and that it is chosen as well changes nothing", ID{Kind: "Namespace", Name: "x"}, StageDefinitions},
		{"cluster role", "bindings name it", ID{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "x"}, StageDefinitions},
		{"another namespace", "only the core kind counts", ID{Group: "example.com", Kind: "Namespace", Name: "x"}, StageRest},
		{"storage class", "claims name it", ID{Group: "storage.k8s.io", Kind: "StorageClass", Name: "x"}, StageClasses},
		{"class of a custom kind", "the name is the rule", ID{Group: "cluster.x-k8s.io", Kind: "ClusterClass", Namespace: "n", Name: "x"}, StageClasses},
		{"binding", "needs the role first", ID{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding", Name: "x"}, StageRest},
		{"role", "it is chosen", ID{Group: "rbac.authorization.k8s.io", Kind: "Role", Namespace: "n", Name: "x"}, StageChosen},
		{"another role", "the group counts", ID{Group: "example.com", Kind: "Role", Namespace: "n", Name: "x"}, StageRest},
		{"cluster", "what it refers to comes first", ID{Group: "cluster.x-k8s.io", Kind: "Cluster", Namespace: "n", Name: "x"}, StageClusters},
		{"class of clusters", "clusters name it", ID{Group: "cluster.x-k8s.io", Kind: "ClusterClass", Namespace: "n", Name: "x"}, StageClasses},
		{"provider's cluster", "its group is another", ID{Group: "infrastructure.cluster.x-k8s.io", Kind: "LocalCluster", Namespace: "n", Name: "x"}, StageRest},
		{"deployment", "everything else", ID{Group: "apps", Kind: "Deployment", Namespace: "n", Name: "x"}, StageRest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Stage(tt.id, Kinds{{Group: "rbac.authorization.k8s.io", Kind: "Role"}: true, {Kind: "Namespace"}: true}); got != tt.want {
				t.Errorf("%s: stage %d, want %d", tt.reason, got, tt.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	want := []ID{
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "x"},
		{Kind: "Namespace", Name: "a"},
		{Kind: "Namespace", Name: "b"},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "x"},
		{Group: "storage.k8s.io", Kind: "StorageClass", Name: "x"},
		{Group: "example.com", Kind: "OtherClass", Name: "x"},
		{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding", Name: "x"},
		{Kind: "ServiceAccount", Namespace: "a", Name: "x"},
		{Kind: "ConfigMap", Namespace: "a", Name: "y"},
		{Kind: "ConfigMap", Namespace: "b", Name: "x"},
		{Kind: "Service", Namespace: "a", Name: "x"},
		{Group: "apps", Kind: "Deployment", Namespace: "a", Name: "x"},
		{Group: "apps", Kind: "DaemonSet", Namespace: "a", Name: "x"},
		{Group: "example.com", Kind: "Thing", Namespace: "a", Name: "x"},
		{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration", Name: "x"},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Compare)
	if !slices.Equal(got, want) {
		t.Errorf("sorted:\n got %v\nwant %v", got, want)
	}
	for i, a := range want {
		for j, b := range want {
			if (Compare(a, b) < 0) != (i < j) {
				t.Errorf("Compare(%v, %v) < 0 = %t", a, b, i >= j)
			}
		}
	}
}
