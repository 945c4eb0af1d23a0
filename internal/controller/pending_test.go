package controller

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
)

// What is not possible yet is waited for until the timeout, and no longer: then it is
// a failure that says what it waits for. It goes on when the event comes after all.
func TestPendingPastItsTimeout(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	immutable := func(value string) map[string]string {
		return map[string]string{"app/a.yaml": configMap("held", value) + "immutable: true\n"}
	}
	first := "main@sha1:" + s.repo.Commit(immutable("one"))
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.Force, k.Spec.Timeout = true, shortest })
	s.awaitLive("app", first)
	held := s.config("held")
	edit(s, held, func(m *corev1.ConfigMap) { m.Finalizers = []string{"example.com/hold"} })

	second := s.push(immutable("two"))
	s.awaitUnit("app", "waiting", func(k *kustomizev1.Kustomization) bool { return says(k, "Unknown", meta.ProgressingReason, "held") })
	s.awaitFailure("app", meta.ReconciliationFailedReason, "still waiting after 30s", "ConfigMap/"+s.namespace+"/held", "raise spec.timeout")
	edit(s, held, func(m *corev1.ConfigMap) { m.Finalizers = nil })
	s.awaitLive("app", second)
	if got := s.config("held").Data["value"]; got != "two" {
		t.Errorf("it holds %q, want two", got)
	}
}
