package controller

import (
	"fmt"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// deliveredByFlux applies a manifest as the toolkit's engine does: server-side,
// with its field manager, the owner labels and no digest.
func (s *stage) deliveredByFlux(unit, manifest string) {
	s.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &u.Object); err != nil {
		s.Fatal(err)
	}
	u.SetNamespace(s.namespace)
	u.SetLabels(map[string]string{toolkit + "name": unit, toolkit + "namespace": s.namespace})
	err := s.client.Apply(s.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldManager), client.ForceOwnership)
	if err != nil {
		s.Fatal(err)
	}
}

// leftByFlux makes a Kustomization as the toolkit's engine leaves it.
func (s *stage) leftByFlux(name string, change func(*kustomizev1.Kustomization), inventory ...string) {
	s.Helper()
	k := s.unit(name, func(k *kustomizev1.Kustomization) {
		k.Finalizers = []string{kustomizev1.KustomizationFinalizer}
		change(k)
	})
	k.Status.ObservedGeneration, k.Status.LastAppliedRevision = k.Generation, "main@sha1:0"
	k.Status.Inventory = &kustomizev1.ResourceInventory{}
	for _, id := range inventory {
		k.Status.Inventory.Entries = append(k.Status.Inventory.Entries, kustomizev1.ResourceRef{ID: s.namespace + "_" + id, Version: "v1"})
	}
	report.Ready(k, meta.ReconciliationSucceededReason, "Applied revision: main@sha1:0")
	if err := s.client.Status().Update(s.Context(), k); err != nil {
		s.Fatal(err)
	}
}

// fluxStage is a cluster that the toolkit's engine has served until now.
func fluxStage(t *testing.T) (*stage, *rest.Config) {
	cluster := testkit.Start(t, testkit.WithControllers())
	if err := crds.Apply(t.Context(), cluster.Config); err != nil {
		t.Fatal(err)
	}
	s := stageOn(t, cluster.Config)
	s.source(func(g *sourcev1.GitRepository) { g.Finalizers = []string{sourcev1.SourceFinalizer} })
	return s, cluster.Config
}

// A cluster changes engine in place: nothing is restarted or deleted, what Flux
// delivered is pruned by the inventory that it left, and what nobody may
// remove is left alone.
func TestTakesOverFromFlux(t *testing.T) {
	t.Parallel()
	s, config := fluxStage(t)
	web := deployment("web", "image", 1)
	s.deliveredByFlux("app", configMap("a", "1"))
	s.deliveredByFlux("app", web)
	s.deliveredByFlux("app", configMap("left-git", "1"))
	s.deliveredByFlux("app", annotated(configMap("kept", "1"), "prune", "disabled"))
	s.deliveredByFlux("app", annotated(configMap("left-alone", "theirs"), "reconcile", "disabled"))
	s.leftByFlux("app", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true },
		"a__ConfigMap", "web_apps_Deployment", "left-git__ConfigMap", "kept__ConfigMap", "left-alone__ConfigMap", "long-gone__ConfigMap")
	// On another cluster there are objects of the same names as some that are delivered here.
	s.leftByFlux("remote", func(k *kustomizev1.Kustomization) {
		k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "remote"}}
	}, "a__ConfigMap", "fresh__ConfigMap")
	s.deliveredByFlux("tenant", configMap("tenant", "1"))
	s.leftByFlux("tenant", func(k *kustomizev1.Kustomization) { k.Spec.ServiceAccountName = "tenant" }, "tenant__ConfigMap")
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/a.yaml": configMap("a", "1"), "app/web.yaml": web, "app/left-alone.yaml": configMap("left-alone", "ours"),
		"app/fresh.yaml": configMap("fresh", "1"), "tenant/a.yaml": configMap("tenant", "1"),
	})
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: s.namespace}}
	await(s, &appsv1.DeploymentList{}, "web", "running", func(d *appsv1.Deployment) bool { return d.Status.ReadyReplicas == 1 })
	s.read(d)
	before := map[string]types.UID{"a": s.config("a").UID, "kept": s.config("kept").UID, "tenant": s.config("tenant").UID, "pod": s.onePod()}

	s.engine = engineFor(t, config)
	k := s.awaitLive("app", revision)
	now := &appsv1.Deployment{ObjectMeta: d.ObjectMeta}
	s.read(now)
	after := map[string]types.UID{"a": s.config("a").UID, "kept": s.config("kept").UID, "tenant": s.config("tenant").UID, "pod": s.onePod()}
	if fmt.Sprint(before) != fmt.Sprint(after) || now.UID != d.UID {
		t.Errorf("something was made anew or restarted: before %v, after %v", before, after)
	}
	if s.there("left-git") || s.config("left-alone").Data["value"] != "theirs" {
		t.Errorf("what left Git is there: %t; what is annotated holds %q", s.there("left-git"), s.config("left-alone").Data["value"])
	}
	if n := len(k.Status.Inventory.Entries); n != 4 {
		t.Errorf("the inventory holds %v, want a, fresh, web and left-alone", k.Status.Inventory.Entries)
	}
	s.leavesUnreachableAlone()
	if err := s.client.Delete(t.Context(), s.fleet()); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(s.fleet(), &sourcev1.GitRepositoryList{})
}

// leavesUnreachableAlone deletes the Kustomizations whose objects nobody may remove:
// one of another cluster stays until told to leave them behind, and one whose account
// is gone goes without them.
func (s *stage) leavesUnreachableAlone() {
	s.Helper()
	remote := s.awaitFailure("remote", meta.ReconciliationFailedReason, "Secret/"+s.namespace+"/remote", "spec.kubeConfig")
	tenant := s.awaitFailure("tenant", meta.ReconciliationFailedReason, "ServiceAccount "+s.namespace+"/tenant")
	if len(remote.Status.Inventory.Entries) == 0 || len(tenant.Status.Inventory.Entries) == 0 {
		s.Error("an inventory is lost")
	}
	s.delete(remote)
	s.delete(tenant)
	s.awaitFailure("remote", meta.PruneFailedReason, "Secret/"+s.namespace+"/remote", "deletionPolicy: Orphan")
	edit(s, s.kustomization("remote"), func(k *kustomization) { k.Spec.DeletionPolicy = kustomizev1.DeletionPolicyOrphan })
	for _, name := range []string{"remote", "tenant"} {
		s.awaitGone(s.kustomization(name), &kustomizev1.KustomizationList{})
	}
	if !s.there("tenant") || !s.there("a") {
		s.Errorf("what was delivered is there: tenant %t, a %t", s.there("tenant"), s.there("a"))
	}
}

// onePod returns the uid of the only pod of the stage.
func (s *stage) onePod() types.UID {
	s.Helper()
	var pods corev1.PodList
	if err := s.client.List(s.Context(), &pods, client.InNamespace(s.namespace)); err != nil || len(pods.Items) != 1 {
		s.Fatalf("%d pods, want 1 (%v)", len(pods.Items), err)
	}
	return pods.Items[0].UID
}
