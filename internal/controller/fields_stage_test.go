package controller

import (
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
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

// inNamespace gives a manifest a namespace.
func inNamespace(manifest, namespace string) string {
	return strings.Replace(manifest, "metadata:", "metadata:\n  namespace: "+namespace, 1)
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

type kustomization = kustomizev1.Kustomization

// held returns the digest of the deletions that wait for approval, from the
// message that tells how to approve them.
func held(k *kustomization) string {
	_, digest, _ := strings.Cut(report.Condition(k, meta.ReadyCondition).Message, "--plan ")
	return digest
}

func (s *stage) approve(name, digest string) {
	s.Helper()
	edit(s, s.kustomization(name), func(k *kustomization) {
		k.Annotations = map[string]string{AnnotationApprovedPlan: digest}
	})
}

// approveWhatIsHeld approves the deletions of a revision, and waits until it is live.
func (s *stage) approveWhatIsHeld(name, revision string) {
	s.Helper()
	k := s.awaitUnit(name, "attempted at "+revision, func(k *kustomization) bool {
		return k.Status.LastAttemptedRevision == revision && report.Condition(k, meta.ReadyCondition).Reason != meta.ProgressingReason
	})
	if report.Condition(k, meta.ReadyCondition).Reason == report.ReasonApprovalRequired {
		s.approve(name, held(k))
	}
	s.awaitLive(name, revision)
}

// atRevision is true of a source that has fetched the revision.
func atRevision(revision string) func(*sourcev1.GitRepository) bool {
	return func(g *sourcev1.GitRepository) bool {
		return g.Status.Artifact != nil && g.Status.Artifact.Revision == revision
	}
}
