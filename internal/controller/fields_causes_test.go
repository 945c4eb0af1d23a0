package controller

import (
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rollout is a Deployment that gives up after two seconds, with these parts of
// its pod template.
func rollout(annotations, pod, container string) string {
	return strings.NewReplacer("ANNOTATIONS", annotations, "POD", pod, "CONTAINER", container).Replace(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  progressDeadlineSeconds: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {ANNOTATIONS}}
    spec: {POD containers: [{name: web, image: "registry.test/web:1" CONTAINER}]}
`)
}

// A Kustomization whose Deployment fails says which of the ways to fail it was, in
// its own message.
func TestCausesOfFailure(t *testing.T) {
	t.Parallel()
	none := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	}
	small := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
		}}},
	}
	for _, tc := range []struct {
		name, reason string
		before       client.Object
		deployment   string
		words        []string
	}{
		{name: "quota", reason: "no pod fits a quota of none", before: none,
			deployment: rollout("", "", ""), words: []string{"quota leaves no room", "exceeded quota: none"}},
		{name: "readiness", reason: "the application runs and never gets ready",
			deployment: rollout("localkube.bowline.dev/fail: readiness", "", ", readinessProbe: {httpGet: {port: 80}}"), words: []string{"readiness probe", "container web of Pod/"}},
		{name: "image pull", reason: "the image cannot be had",
			deployment: rollout("localkube.bowline.dev/fail: image-pull", "", ""), words: []string{"image cannot be pulled: registry.test/web:1"}},
		{name: "missing permission", reason: "there is no such service account",
			deployment: rollout("", "serviceAccountName: nobody, ", ""), words: []string{"missing permission", `serviceaccount "nobody" not found`}},
		{name: "limit range", reason: "the container wants more than any may", before: small,
			deployment: rollout("", "", ", resources: {limits: {cpu: '2'}}"), words: []string{"limit range refuses", "maximum cpu usage per Container is 100m"}},
		{name: "crash", reason: "the application ends with an error",
			deployment: rollout(`localkube.bowline.dev/fail: crash, localkube.bowline.dev/exit-code: "7", localkube.bowline.dev/termination-message: "starting\npanic: no database"`, "", ""),
			words:      []string{"application crashes with exit code 7", "panic: no database"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			if tc.before != nil {
				tc.before.SetNamespace(s.namespace)
				s.create(tc.before)
			}
			s.repo.Commit(map[string]string{"app/web.yaml": tc.deployment})
			s.source()
			// The Deployment may give up before its pod has shown what is wrong: then the next look tells.
			s.unit("app", func(k *kustomizev1.Kustomization) {
				k.Spec.Wait, k.Spec.RetryInterval = true, &metav1.Duration{Duration: time.Second}
			})
			k := s.awaitFailure("app", meta.HealthCheckFailedReason, append(tc.words, "Deployment/"+s.namespace+"/web is Failed")...)
			if !healthy(k, metav1.ConditionFalse) {
				t.Errorf("%s: %s", tc.reason, standingOf(k))
			}
		})
	}
}
