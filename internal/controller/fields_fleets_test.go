package controller

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// fleetsFolder names the environment variable with a folder of fleets that
// other people wrote: copies of public repositories, one folder each.
const fleetsFolder = "BOWLINE_FLEETS"

// fleet returns the folder of a fleet, and skips the test where there is none.
func fleet(t *testing.T, name string) string {
	t.Helper()
	root := os.Getenv(fleetsFolder)
	if root == "" {
		t.Skipf("SKIPPED: %s names no folder of fleets, so nothing is proven about fleets of other people", fleetsFolder)
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("%s: %v", fleetsFolder, err)
	}
	return dir
}

// The folder of an application as its authors publish it, on a stage with
// controllers and nodes: everything gets ready.
func TestFleetOfOneApplication(t *testing.T) {
	t.Parallel()
	dir := fleet(t, "podinfo")
	s := newStage(t)
	revision := "main@sha1:" + s.repo.CommitDir(dir)
	s.source()
	s.unit("podinfo", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.Wait = "./kustomize", true
		k.Spec.Timeout = &metav1.Duration{Duration: time.Minute}
	})
	k := s.awaitLive("podinfo", revision)
	if n := len(k.Status.Inventory.Entries); n != 3 {
		t.Errorf("the inventory holds %d objects, want the Deployment, the Service and the HorizontalPodAutoscaler", n)
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "podinfo", Namespace: s.namespace}}
	s.read(d)
	if d.Status.ReadyReplicas == 0 || d.Status.ReadyReplicas != d.Status.Replicas {
		t.Errorf("%d of %d replicas are ready", d.Status.ReadyReplicas, d.Status.Replicas)
	}
}

// A platform repository with a folder per cluster and a repository per tenant, as
// their authors wrote them, converges on an engine that locks tenants in: the
// addresses on a public host lead to loopback by mirrors and nothing else is changed.
// Set aside is what comes from an OCI registry or is delivered by Helm: of those kinds
// there are definitions and nobody who acts on them.
func TestFleetOfTenants(t *testing.T) {
	t.Parallel()
	platform, team := fleet(t, "multi-tenancy"), fleet(t, "multi-tenancy-dev-team")
	for cluster, tenancy := range map[string]Tenancy{
		"production": {},
		// The flags that the fleet sets for the toolkit's own engine.
		"staging": {DefaultServiceAccount: "default", NoCrossNamespaceRefs: true},
	} {
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			s, revision := tenantsStage(t, platform, team, tenancy)
			s.unit("flux-system", as("kustomize-controller"), func(k *kustomizev1.Kustomization) {
				k.Spec.Path, k.Spec.TargetNamespace, k.Spec.SourceRef.Name = "./clusters/"+cluster, "", "flux-system"
			})
			s.awaitLive("flux-system", revision)
			s.setAsideOCI()
			for _, name := range []string{"kyverno", "kyverno-policies", "tenants"} {
				s.awaitLive(name, revision)
			}
			apps := *s
			apps.namespace, apps.repo = "apps", s.repo.On("dev-team")
			k := apps.awaitUnit("dev-team", "ready", ready)
			if n := len(k.Status.Inventory.Entries); n != 2 {
				t.Errorf("the tenant has %d objects, want its HelmRepository and HelmRelease", n)
			}
			apps.confined(cluster)
		})
	}
}

// tenantsStage is a cluster of its own, as it is after the bootstrap: with the
// namespace, the account and the repository that the fleet's files name, and the
// definitions of the kinds that are set aside.
func tenantsStage(t *testing.T, platform, team string, tenancy Tenancy) (s *stage, revision string) {
	t.Helper()
	const address = "https://github.com/fluxcd/flux2-multi-tenancy"
	cluster := testkit.Start(t, testkit.WithControllers())
	server := testkit.NewGitServer(t)
	repo := server.Repo("fleet")
	engine := engineFor(t, cluster.Config, func(o *Options) { o.Mirrors, o.Tenancy = []string{address + "=" + repo.URL()}, tenancy })
	s = stageOn(t, cluster.Config)
	s.engine, s.git, s.repo, s.namespace = engine, server, repo, "flux-system"
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	account := metav1.ObjectMeta{Name: "kustomize-controller", Namespace: s.namespace}
	s.create(&corev1.ServiceAccount{ObjectMeta: account})
	s.create(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "cluster-reconciler"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account.Name, Namespace: account.Namespace}}})
	s.define("source.toolkit.fluxcd.io", "OCIRepository", "ocirepositories", "Namespaced", "v1beta2")
	s.define("source.toolkit.fluxcd.io", "HelmRepository", "helmrepositories", "Namespaced", "v1beta1")
	s.define("helm.toolkit.fluxcd.io", "HelmRelease", "helmreleases", "Namespaced", "v2beta1")
	s.define("kyverno.io", "ClusterPolicy", "clusterpolicies", "Cluster", "v1")
	revision = "main@sha1:" + repo.CommitDir(platform)
	repo.On("dev-team").CommitDir(team)
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "flux-system", address })
	return s, revision
}

// define installs a kind that takes anything.
func (s *stage) define(group, kind, plural, scope, version string) {
	s.Helper()
	schema := map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
	s.create(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": plural + "." + group},
		"spec": map[string]any{
			"group": group, "scope": scope,
			"names":    map[string]any{"kind": kind, "plural": plural, "singular": strings.ToLower(kind), "listKind": kind + "List"},
			"versions": []any{map[string]any{"name": version, "served": true, "storage": true, "schema": schema}},
		},
	}})
}

// setAsideOCI takes the part of whoever would deliver kyverno from its registry: its
// Kustomization is suspended and said to be ready.
func (s *stage) setAsideOCI() {
	s.Helper()
	const name = "kyverno-controller"
	s.awaitFailure(name, report.ReasonNotSupported, "spec.sourceRef.kind OCIRepository")
	k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.Suspend = true })
	s.read(k)
	before := k.DeepCopy()
	k.Status.ObservedGeneration = k.Generation
	report.Ready(k, meta.ReconciliationSucceededReason, "set aside")
	if err := s.client.Status().Patch(s.Context(), k, client.MergeFrom(before)); err != nil {
		s.Fatal(err)
	}
}

// confined has the tenant reach beyond its namespace, from its own repository.
func (s *stage) confined(cluster string) {
	s.Helper()
	s.repo.Commit(map[string]string{
		cluster + "/kustomization.yaml": "resources: [escape.yaml]\n",
		cluster + "/escape.yaml": manifest("rbac.authorization.k8s.io/v1", "ClusterRole", "", "all", "rules: []") + "---\n" +
			manifest("v1", "ConfigMap", "flux-system", "a"),
	})
	s.ask(&sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Name: "dev-team", Namespace: s.namespace}})
	s.awaitFailure("dev-team", meta.ReconciliationFailedReason, "ClusterRole/all", `"system:serviceaccount:apps:dev-team" cannot patch resource "clusterroles"`)
	err := s.client.Get(s.Context(), client.ObjectKey{Namespace: "flux-system", Name: "a"}, &corev1.ConfigMap{})
	if !apierrors.IsNotFound(err) {
		s.Errorf("the tenant wrote into the platform's namespace: %v", err)
	}
}
