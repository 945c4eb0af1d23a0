package controller

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// endless takes ten million rounds.
const endless = "[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, " +
	"[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(a, size(metadata.name) > 0)))))))"

// checks is what healthCheckExprs says of one kind.
func checks(version, kind, current, inProgress, failed string) []kustomize.CustomHealthCheck {
	return []kustomize.CustomHealthCheck{{APIVersion: version, Kind: kind, HealthCheckExpressions: kustomize.HealthCheckExpressions{
		Current: current, InProgress: inProgress, Failed: failed,
	}}}
}

// A kind whose status nobody but its users can read is healthy when they say so, also
// when somebody else delivers it and for kinds that have no status at all. The first
// expression that is true counts, in the toolkit's order.
func TestHealthCheckExprs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	version := s.namespace + ".test/v1"
	thing := "apiVersion: " + version + "\nkind: Thing\nmetadata:\n  name: one\nspec: {wants: much}\n"
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"definition/a.yaml": thingDefinition(s.namespace), "app/a.yaml": thing, "foreign/a.yaml": configMap("foreign", "1"), "plain/a.yaml": configMap("plain", "new"),
	})
	s.source()
	s.unit("definition")
	words := checks(version, "Thing", "spec.wants == spec.has", "!has(spec.has)", "has(spec.has) && spec.has == 'nothing'")
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.Wait, k.Spec.HealthCheckExprs = true, words })
	s.unit("foreign", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: version, Kind: "Thing", Name: "one"}}
		k.Spec.HealthCheckExprs = checks(version, "", "spec.has == 'more'", "", "")
	})
	s.unit("plain", func(k *kustomizev1.Kustomization) {
		k.Spec.Wait, k.Spec.HealthCheckExprs = true, checks("v1", "ConfigMap", "data.value == 'done'", "", "")
	})
	for name, why := range map[string]string{
		"app":     "Thing/" + s.namespace + "/one is InProgress: spec.healthCheckExprs[0].inProgress is true",
		"foreign": "Thing/" + s.namespace + "/one is Unknown: spec.healthCheckExprs[0].current has no answer: no such key: has",
		"plain":   "ConfigMap/" + s.namespace + "/plain is InProgress: none of its expressions is true",
	} {
		s.awaitUnit(name, "waiting: "+why, func(k *kustomizev1.Kustomization) bool {
			c := report.Condition(k, meta.ReadyCondition)
			return c != nil && strings.Contains(c.Message, why) && healthy(k, metav1.ConditionUnknown)
		})
	}
	s.has(version, "nothing")
	s.awaitFailure("app", meta.HealthCheckFailedReason, "Thing/"+s.namespace+"/one is Failed: spec.healthCheckExprs[0].failed is true")
	s.has(version, "much")
	if k := s.awaitLive("app", revision); !healthy(k, metav1.ConditionTrue) {
		t.Errorf("not said to be healthy: %s", standingOf(k))
	}
	s.has(version, "more")
	s.awaitLive("foreign", revision)
	s.awaitLive("plain", s.push(map[string]string{"plain/a.yaml": configMap("plain", "done")}))
}

// has changes what a Thing has, which nobody delivers.
func (s *stage) has(version, what string) {
	s.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": version, "kind": "Thing",
		"metadata": map[string]any{"name": "one", "namespace": s.namespace}}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"has":"`+what+`"}}`))
	if err := s.client.Patch(s.Context(), u, patch, client.FieldOwner("its-controller")); err != nil {
		s.Fatalf("change a Thing: %v", err)
	}
}

// Where nothing is waited for, the expressions are compiled and say nothing.
func TestHealthCheckExprsWithoutWait(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) {
		k.Spec.HealthCheckExprs = checks("v1", "ConfigMap", "false", "", "true")
	})
	if k := s.awaitLive("app", revision); report.Condition(k, meta.HealthyCondition) != nil {
		t.Errorf("says something about health that it has not looked at: %s", standingOf(k))
	}
}

// An expression that does not compile is told with its field and position; nothing
// is delivered. One that would take for ever fails the health check. When it is
// corrected, all goes on.
func TestExpressionsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	rows := []struct {
		name, reason string
		set          func(*kustomizev1.KustomizationSpec)
		because      string
		words        []string
		delivered    bool
	}{
		{
			name: "syntax", reason: "it ends too soon", because: meta.InvalidCELExpressionReason,
			set: func(s *kustomizev1.KustomizationSpec) {
				s.HealthCheckExprs = checks("v1", "ConfigMap", "data.", "", "")
			},
			words: []string{"spec.healthCheckExprs[0].current", "line 1, column 6", "correct the expression"},
		},
		{
			name: "no-bool", reason: "text is neither true nor false", because: meta.InvalidCELExpressionReason,
			set: func(s *kustomizev1.KustomizationSpec) {
				s.HealthCheckExprs = checks("v1", "ConfigMap", "true", "", "'a' + 'b'")
			},
			words: []string{"spec.healthCheckExprs[0].failed", "is of type string and not bool"},
		},
		{
			name: "endless", reason: "others wait for the same watch", because: meta.HealthCheckFailedReason, delivered: true,
			set: func(s *kustomizev1.KustomizationSpec) {
				s.Wait, s.HealthCheckExprs = true, checks("v1", "ConfigMap", endless, "", "")
			},
			words: []string{"/endless is Failed: spec.healthCheckExprs[0].current takes more than", "simplify the expression"},
		},
		{
			name: "dependency", reason: "there is no such variable", because: meta.InvalidCELExpressionReason,
			set: func(s *kustomizev1.KustomizationSpec) {
				s.DependsOn = []kustomizev1.DependencyReference{{Name: "good"}, {Name: "good", ReadyExpr: "dep.status.ok == true &&\n nope"}}
			},
			words: []string{"spec.dependsOn[1].readyExpr", "line 2, column 2", "nope"},
		},
	}
	files := map[string]string{"good/a.yaml": configMap("good", "1")}
	for _, row := range rows {
		files[row.name+"/a.yaml"] = configMap(row.name, "1")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("good", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	for _, row := range rows {
		s.unit(row.name, func(k *kustomizev1.Kustomization) { row.set(&k.Spec) })
	}
	s.awaitLive("good", revision)
	for _, row := range rows {
		k := s.awaitFailure(row.name, row.because, row.words...)
		stalled := report.Condition(k, meta.StalledCondition) != nil
		if stalled == row.delivered || (k.Status.Inventory != nil) != row.delivered {
			t.Errorf("%s: %s: stalled %t, inventory %v", row.name, row.reason, stalled, k.Status.Inventory)
		}
		edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.HealthCheckExprs, k.Spec.DependsOn = nil, nil })
		s.awaitLive(row.name, revision)
	}
}

// A dependency is ready when the dependent says so, whatever else there is to say
// about it. It may look at any field of the dependency and of itself, and is woken when
// one of them changes.
func TestReadyExpr(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"base/a.yaml": deployment("web", "does-not-exist", 1), "label/a.yaml": configMap("label", "1"), "self/a.yaml": configMap("self", "1"), "status/a.yaml": configMap("status", "1"),
		"wrong/a.yaml": configMap("wrong", "1"),
	})
	s.source()
	// The base never gets ready: nobody has its image.
	base := s.unit("base", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	for name, words := range map[string]string{
		"label":  "has(dep.metadata.labels) && dep.metadata.labels['stage'] == 'open'",
		"self":   "has(self.metadata.labels) && self.metadata.labels['from'] == dep.metadata.name",
		"status": "has(dep.status.inventory) && size(dep.status.inventory.entries) == 1",
		"wrong":  "dep.metadata.labels['stage'] == 'open'",
	} {
		s.unit(name, func(k *kustomizev1.Kustomization) {
			k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "base", ReadyExpr: words}}
		})
	}
	s.awaitLive("status", revision)
	s.awaitFailure("label", meta.DependencyNotReadyReason, "base' is not ready: spec.dependsOn[0].readyExpr is false")
	self := s.awaitFailure("self", meta.DependencyNotReadyReason, "spec.dependsOn[0].readyExpr is false")
	s.awaitFailure("wrong", meta.DependencyNotReadyReason, "spec.dependsOn[0].readyExpr has no answer: no such key: labels")
	edit(s, base, func(k *kustomizev1.Kustomization) { k.Labels = map[string]string{"stage": "open"} })
	s.awaitLive("label", revision)
	s.awaitLive("wrong", revision)
	edit(s, self, func(k *kustomizev1.Kustomization) { k.Labels = map[string]string{"from": "base"} })
	s.awaitLive("self", revision)
	s.read(base)
	if report.IsReady(base, base.Status.ObservedGeneration) {
		t.Error("the dependency is ready, so that this test shows nothing")
	}
}

// With the toolkit's feature gate, the expression is asked besides the usual question.
func TestReadyExprAdditive(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.unit("base", func(k *kustomizev1.Kustomization) { k.Spec.Suspend = true })
	for _, row := range []struct {
		name, reason, text, waitsFor string
		additive                     bool
	}{
		{name: "instead", reason: "the expression replaces the question", text: "dep.spec.suspend == true"},
		{name: "besides", reason: "both are asked", text: "dep.spec.suspend == true", additive: true, waitsFor: "dependency '" + s.namespace + "/base' is not ready"},
		{name: "false", reason: "the expression comes first", text: "dep.spec.suspend == false", additive: true, waitsFor: "readyExpr is false"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: row.name, Namespace: s.namespace}}
			k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "base", ReadyExpr: row.text}}
			run := &kustomizationRun{k: k, kustomizations: &kustomizations{units: &units[*kustomizev1.Kustomization]{
				client: s.client, written: newWritten[*kustomizev1.Kustomization](), wording: newWording(), artifacts: newArtifacts(), additiveReadyExpr: row.additive,
				one: func() *kustomizev1.Kustomization { return &kustomizev1.Kustomization{} },
			}}}
			got, _ := run.dependency(t.Context())
			if (got == "") != (row.waitsFor == "") || !strings.Contains(got, row.waitsFor) {
				t.Errorf("waits for %q, want %q: %s", got, row.waitsFor, row.reason)
			}
		})
	}
}
