package controller

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/crds"
)

// definition is the CustomResourceDefinition of a kind that only one test has.
func definition(group, kind string) string {
	plural := strings.ToLower(kind) + "s"
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.%[2]s}
spec:
  group: %[2]s
  scope: Namespaced
  names: {kind: %[3]s, plural: %[1]s, singular: %[4]s, listKind: %[3]sList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, plural, group, kind, strings.ToLower(kind))
}

// A unit with an object of an unknown kind says so, and goes on when somebody
// installs the kind, although its own retry is hours away.
func TestUnknownKind(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	group := s.namespace + ".example.com"
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()

	second := s.push(map[string]string{"app/w.yaml": "apiVersion: " + group + "/v1\nkind: Widget\nmetadata: {name: w}\n"})
	s.awaitFailure("app", meta.ReconciliationFailedReason, "Widget", group+"/v1", "does not serve this kind", "install the CustomResourceDefinition")
	s.untouched(before)

	s.installDefinition(definition(group, "Widget"))
	s.awaitLive("app", second)
	widgets := s.delivered(schema.GroupVersionKind{Group: group, Version: "v1", Kind: "Widget"})
	if len(widgets) != 1 {
		t.Errorf("there are %v, want w", widgets)
	}
	s.untouched(before)
}

func (s *stage) installDefinition(manifest string) {
	s.Helper()
	all, err := crds.Read(strings.NewReader(manifest))
	if err != nil {
		s.Fatal(err)
	}
	for _, u := range all {
		if err := s.client.Create(s.Context(), u.DeepCopy()); err != nil {
			s.Fatalf("install %s: %v", u.GetName(), err)
		}
		s.Cleanup(func() { _ = s.client.Delete(s.background(), u) })
	}
}

// A unit whose namespace is missing goes on when another unit brings it.
func TestNamespaceThatComesLater(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	late := s.namespace + "-late"
	first := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/a.yaml": configMap("a", "1"), "tenant/README.md": "nothing yet",
	})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = late })
	s.awaitFailure("app", meta.ReconciliationFailedReason, late, "deliver Namespace "+late)
	// Failures in a row make the next retry a long way off.
	for range 6 {
		request := s.ask(&kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: s.namespace}})
		s.awaitUnit("app", "asked again", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == request })
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: late}}
	s.create(namespace)
	s.Cleanup(func() { _ = s.client.Delete(s.background(), namespace) })
	s.awaitLive("app", first)
	m := &corev1.ConfigMap{}
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: late, Name: "a"}, m); err != nil {
		t.Error(err)
	}
}
