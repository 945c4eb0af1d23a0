package controller

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
)

// runningDeployment is a Deployment that nobody delivers and that gets ready.
func runningDeployment(name, namespace string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "image"}}},
			},
		},
	}
}

func mustQuantity(s string) *resource.Quantity { q := resource.MustParse(s); return &q }

// awaitQuota waits until a quota counts.
func (s *stage) awaitQuota(name string) {
	s.Helper()
	await(s, &corev1.ResourceQuotaList{}, name, "counting", func(q *corev1.ResourceQuota) bool { return len(q.Status.Hard) > 0 })
}

// kustomization is the stage's Kustomization of a name, to be read or edited.
func (s *stage) kustomization(name string) *kustomizev1.Kustomization {
	return &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
}
