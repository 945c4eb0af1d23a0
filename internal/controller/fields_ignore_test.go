package controller

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

func (s *stage) aDeployment(name string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
}

// scale does what an autoscaler does.
func (s *stage) scale(name string, replicas int32) {
	s.Helper()
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	if err := s.client.SubResource("scale").Update(s.Context(), s.aDeployment(name), client.WithSubResourceBody(scale), client.FieldOwner("autoscaler")); err != nil {
		s.Fatalf("scale %s: %v", name, err)
	}
}

func (s *stage) awaitReplicas(name string, want int32, why string) *appsv1.Deployment {
	s.Helper()
	return await(s, &appsv1.DeploymentList{}, name, why, func(d *appsv1.Deployment) bool { return d.Spec.Replicas != nil && *d.Spec.Replicas == want })
}

// The number of replicas is the classic field that is left to others. It is Git's at
// first and when the object is made anew; what an autoscaler makes of it stays, whatever
// else is applied. The rule is about the objects that it selects. Without it, Git's
// value is back at once.
func TestIgnoreRules(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": deployment("scaled", "i:1", 2), "app/b.yaml": deployment("fixed", "i:1", 2)})
	s.source()
	rules := []kustomizev1.IgnoreRule{{Paths: []string{"/spec/replicas"}, Target: &kustomize.Selector{Kind: "Deployment", Name: "sca.*"}}}
	k := s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.Ignore = rules })
	s.awaitLive("app", first)
	s.awaitReplicas("scaled", 2, "as in Git")
	s.scale("scaled", 5)
	s.scale("fixed", 5)
	s.awaitReplicas("fixed", 2, "healed: no rule is about it")
	second := s.push(map[string]string{"app/a.yaml": deployment("scaled", "i:2", 3)})
	s.awaitLive("app", second)
	if d := s.awaitReplicas("scaled", 5, "kept"); d.Spec.Template.Spec.Containers[0].Image != "i:2" {
		t.Errorf("the commit has not arrived: %s", d.Spec.Template.Spec.Containers[0].Image)
	}
	s.scale("scaled", 6) // after our apply, which sent the replicas along
	d := s.awaitReplicas("scaled", 6, "scaled")
	request := s.ask(k)
	s.awaitUnit("app", "reconciled", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == request })
	if now := s.awaitReplicas("scaled", 6, "kept"); now.Generation != d.Generation {
		t.Errorf("written to, from generation %d to %d", d.Generation, now.Generation)
	}
	if err := s.client.Delete(t.Context(), s.aDeployment("scaled")); err != nil {
		t.Fatal(err)
	}
	await(s, &appsv1.DeploymentList{}, "scaled", "made anew as in Git", func(now *appsv1.Deployment) bool {
		return now.UID != d.UID && *now.Spec.Replicas == 3
	})
	s.scale("scaled", 7)
	s.awaitReplicas("scaled", 7, "scaled")
	edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.Ignore = nil })
	s.awaitReplicas("scaled", 3, "as in Git again")
}

// A rule that cannot be read is told with its field; nothing is delivered meanwhile.
func TestIgnoreRulesRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"path/a.yaml": configMap("path", "1"), "target/a.yaml": configMap("target", "1")})
	s.source()
	s.unit("path", func(k *kustomizev1.Kustomization) {
		k.Spec.Ignore = []kustomizev1.IgnoreRule{{Paths: []string{"/data/value", "spec.replicas"}}}
	})
	s.unit("target", func(k *kustomizev1.Kustomization) {
		k.Spec.Ignore = []kustomizev1.IgnoreRule{{Paths: []string{"/data/value"}, Target: &kustomize.Selector{Name: "web("}}}
	})
	for name, field := range map[string]string{"path": `spec.ignore[0].paths[1]: "spec.replicas" does not begin with a slash`, "target": "spec.ignore[0].target.name"} {
		k := s.awaitFailure(name, meta.BuildFailedReason, field)
		if report.Condition(k, meta.StalledCondition) == nil || k.Status.Inventory != nil {
			t.Errorf("%s: %s", name, standingOf(k))
		}
		if strings.Contains(s.names(""), name) {
			t.Errorf("%s was delivered", name)
		}
		edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.Ignore = nil })
		s.awaitLive(name, revision)
	}
}
