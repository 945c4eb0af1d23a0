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
	files := map[string]string{}
	for _, name := range spare {
		files["app/"+name+".yaml"] = configMap(name, "1")
	}
	first := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()

	second := s.push(map[string]string{"app/w.yaml": "apiVersion: " + group + "/v1\nkind: Widget\nmetadata: {name: w}\n"})
	s.awaitFailure("app", meta.ReconciliationFailedReason, "Widget", group+"/v1", "does not serve this kind", "install the CustomResourceDefinition")
	s.untouched(before)
	s.failOften()

	before = s.deliveredConfigs()
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

// spare are objects that are there to be deleted.
var spare = []string{"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"}

// failOften makes the unit that fails and has the spare objects try again and fail,
// until its next attempt is minutes away: each deleted object costs an attempt.
func (s *stage) failOften() {
	s.Helper()
	for _, name := range spare {
		was := s.config(name)
		if err := s.client.Delete(s.Context(), was); err != nil {
			s.Fatal(err)
		}
		await(s, &corev1.ConfigMapList{}, name, "made anew", func(m *corev1.ConfigMap) bool { return m.UID != was.UID })
	}
	// The engine logs what an attempt applied when the attempt is over.
	over := func() int { return strings.Count(s.engine.log.about(s.namespace), "msg=applied") }
	s.poll("over", func() bool { return over() > len(spare) })
}

// A unit whose namespace is missing goes on when another unit brings it.
func TestNamespaceThatComesLater(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	late := s.namespace + "-late"
	files := map[string]string{"app/late.yaml": in(late, configMap("late", "1")), "tenant/n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + late + "}\n"}
	for _, name := range spare {
		files["app/"+name+".yaml"] = in(s.namespace, configMap(name, "1"))
	}
	first := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app", inNoNamespace)
	s.awaitFailure("app", meta.ReconciliationFailedReason, late, "deliver Namespace "+late)
	s.failOften()
	s.unit("tenant", inNoNamespace)
	s.Cleanup(func() {
		_ = s.client.Delete(s.background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: late}})
	})
	s.awaitLive("app", first)
}

func inNoNamespace(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" }

func in(namespace, manifest string) string {
	return strings.Replace(manifest, "metadata:\n", "metadata:\n  namespace: "+namespace+"\n", 1)
}
