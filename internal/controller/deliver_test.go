package controller

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDelivers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()
	if len(before) != 2 {
		t.Fatalf("delivered %v, want a and b", before)
	}

	second := s.push(map[string]string{"app/a.yaml": configMap("a", "2")})
	s.awaitLive("app", second)
	if got := s.config("a").Data["value"]; got != "2" {
		t.Errorf("a holds %q after a commit that changed it to 2", got)
	}
	if after := s.deliveredConfigs(); after["b"] != before["b"] {
		t.Errorf("b was touched by a commit that does not concern it: %v, then %v", before["b"], after["b"])
	}

	third := s.remove("app/b.yaml")
	k := s.awaitLive("app", third)
	s.awaitGone(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: s.namespace}}, &corev1.ConfigMapList{})
	if n := len(k.Status.Inventory.Entries); n != 1 {
		t.Errorf("the inventory holds %d objects after b was removed, want 1", n)
	}

	if err := s.client.Delete(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(k, &kustomizev1.KustomizationList{})
	s.awaitGone(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: s.namespace}}, &corev1.ConfigMapList{})
}
