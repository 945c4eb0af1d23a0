package controller

import (
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// What the engine remembers of units is on objects that tenants can write.
var escapesByForgery = []escape{
	{
		name: "forged-inventory", aim: "having the engine delete another tenant's objects",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/b.yaml": configMap("b", "1")})
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a))
			k := a.awaitUnit("app", "ready", ready)
			before := k.DeepCopy()
			k.Status.Inventory.Entries = append(k.Status.Inventory.Entries, kustomizev1.ResourceRef{ID: neighbour + "_theirs__ConfigMap", Version: "v1"})
			if err := a.client.Status().Patch(a.Context(), k, client.MergeFrom(before)); err != nil {
				a.Fatal(err)
			}
			a.remove("app/b.yaml")
			a.poll("pruned", func() bool { return a.names("") == "a" })
			a.delete(k)
			a.awaitGone(k, &kustomizev1.KustomizationList{})
		}, harm: theirsChanged,
	},
	{
		name: "forged-labels", aim: "having another tenant's unit act on one's own objects",
		try: func(a *tenant) {
			a.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bait", Namespace: a.namespace, Labels: map[string]string{
				"kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": neighbour,
			}}})
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a))
			a.awaitUnit("app", "ready", ready)
		},
		harm: func(a *tenant) bool {
			var k kustomizev1.Kustomization
			return !a.has(&corev1.ConfigMap{}, a.namespace, "bait") || !a.has(&k, neighbour, "app") || len(k.Status.Inventory.Entries) != 1
		},
	},
	{
		name: "delivered-labels", aim: "having one's own objects taken for another tenant's",
		try: func(a *tenant) {
			theirs := map[string]string{"kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": neighbour}
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a), func(k *kustomizev1.Kustomization) {
				k.Spec.CommonMetadata = &kustomizev1.CommonMetadata{Labels: theirs}
			})
			a.awaitUnit("app", "ready", ready)
		},
		harm: func(a *tenant) bool {
			var m corev1.ConfigMap
			return !a.has(&m, a.namespace, "a") || m.Labels["kustomize.toolkit.fluxcd.io/namespace"] != a.namespace
		},
	},
	{
		name: "approval", aim: "deleting more than the budget without anybody having looked", reason: report.ReasonApprovalRequired, words: []string{"approve"},
		try: func(a *tenant) {
			files := map[string]string{}
			for i := range 12 {
				files[fmt.Sprintf("%d.yaml", i)] = configMap(fmt.Sprintf("a%d", i), "1")
			}
			a.deliver(files, inOwn(a), func(k *kustomizev1.Kustomization) {
				k.Annotations = map[string]string{AnnotationApprovedPlan: "*"}
			})
			a.awaitUnit("app", "ready", ready)
			var gone []string
			for i := range 10 {
				gone = append(gone, fmt.Sprintf("app/%d.yaml", i))
			}
			a.remove(gone...)
		},
		harm: func(a *tenant) bool { return !a.has(&corev1.ConfigMap{}, a.namespace, "a1") },
	},
	{
		name: "squatting", aim: "keeping another tenant from delivering its own objects", reason: forbidden, words: []string{"cannot patch"},
		try: func(a *tenant) {
			victim := a.cluster.tenant(a.T, "squatted")
			a.deliver(map[string]string{"a.yaml": manifest("v1", "ConfigMap", victim.namespace, "wanted", "data: {value: mine}")})
			a.awaitFailure("app", forbidden, "cannot patch")
			victim.deliver(map[string]string{"a.yaml": configMap("wanted", "theirs")}, inOwn(victim))
			victim.awaitUnit("app", "ready", ready)
		},
		harm: func(a *tenant) bool {
			var m corev1.ConfigMap
			return !a.has(&m, "dev-team-squatted", "wanted") || m.Data["value"] != "theirs"
		},
	},
	{
		name: "keeping", aim: "keeping rights that the platform takes back", reason: forbidden, words: []string{"attempting to grant RBAC permissions"},
		try: func(a *tenant) {
			platform := a.platform("keeping")
			binding := manifest("rbac.authorization.k8s.io/v1", "RoleBinding", a.namespace, "more", "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}",
				"subjects: [{kind: ServiceAccount, name: nobody, namespace: "+a.namespace+"}]")
			platform.repo.Commit(map[string]string{"keeping/a.yaml": configMap("keeping", "1"), "keeping/b.yaml": binding})
			source := platform.source(func(g *sourcev1.GitRepository) { g.Name = "keeping" })
			platform.unit("keeping", func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "keeping", a.namespace
			})
			platform.awaitUnit("keeping", "ready", ready)
			a.deliver(map[string]string{"b.yaml": binding})
			a.awaitUnit("app", "refused", refused[*kustomizev1.Kustomization])
			platform.repo.Delete("keeping/b.yaml")
			platform.ask(source)
			platform.poll("taken back", func() bool { return !a.has(&rbacv1.RoleBinding{}, a.namespace, "more") })
		},
		harm: func(a *tenant) bool { return a.has(&rbacv1.RoleBinding{}, a.namespace, "more") },
	},
	{
		name: "outranking", aim: "keeping the platform from delivering to the tenant's namespace", reason: forbidden, words: []string{"delivered by Kustomization flux-system/outranking"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("limits", "mine")}, inOwn(a))
			a.awaitUnit("app", "ready", ready)
			platform := a.platform("outranking")
			platform.repo.Commit(map[string]string{"outranking/a.yaml": configMap("limits", "theirs")})
			platform.source(func(g *sourcev1.GitRepository) { g.Name = "outranking" })
			platform.unit("outranking", func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "outranking", a.namespace
			})
			platform.awaitUnit("outranking", "ready", ready)
			a.push(map[string]string{"app/a.yaml": configMap("limits", "mine again")})
		},
		harm: func(a *tenant) bool {
			var m corev1.ConfigMap
			return !a.has(&m, a.namespace, "limits") || m.Data["value"] != "theirs"
		},
	},
	{
		name: "cycle", aim: "stopping a unit of the platform", reason: "AccessDenied", words: []string{"spec.dependsOn[0] names another namespace"},
		try: func(a *tenant) {
			platform := a.platform("cycle")
			platform.repo.Commit(map[string]string{"cycle/a.yaml": configMap("cycle", "1")})
			platform.source(func(g *sourcev1.GitRepository) { g.Name = "cycle" })
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a), func(k *kustomizev1.Kustomization) {
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "cycle", Namespace: "flux-system"}}
			})
			platform.unit("cycle", func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "cycle", a.namespace
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "app", Namespace: a.namespace}}
			})
			platform.awaitFailure("cycle", meta.DependencyNotReadyReason, "is not ready")
		}, harm: func(*tenant) bool { return false },
	},
}

// platform is a stage of the administrator in the platform's namespace, with a
// repository of its own.
func (a *tenant) platform(repo string) *stage {
	a.Helper()
	s := *a.cluster.admin
	s.T, s.namespace, s.git = a.T, "flux-system", a.git
	s.repo = a.git.Repo(repo)
	return &s
}

// inOwn has the unit deliver to the tenant's own namespace.
func inOwn(a *tenant) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = a.namespace }
}

func ready(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Status.ObservedGeneration) }
