package controller

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
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
// addresses on public hosts lead to loopback by mirrors, and what the fleet takes from there
// has a stand-in of the same name and version, signed as the fleet asks. The one thing that is added is whom
// to trust for that: the stand-ins are vouched for by a Sigstore of the test.
func TestFleetOfTenants(t *testing.T) {
	t.Parallel()
	platform, team := fleet(t, "multi-tenancy"), fleet(t, "multi-tenancy-dev-team")
	for cluster, row := range map[string]struct {
		tenancy Tenancy
		podinfo string
	}{
		"production": {Tenancy{}, "6.8.0"},
		// The flags that the fleet sets for the toolkit's own engine.
		"staging": {Tenancy{DefaultServiceAccount: "default", NoCrossNamespaceRefs: true}, "6.9.0-rc.1"},
	} {
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			s, revision := tenantsStage(t, platform, team, row.tenancy)
			s.unit("flux-system", as("kustomize-controller"), func(k *kustomizev1.Kustomization) {
				k.Spec.Path, k.Spec.TargetNamespace, k.Spec.SourceRef.Name = "./clusters/"+cluster, "", "flux-system"
			})
			s.awaitLive("flux-system", revision)
			s.trustSigstore("kyverno-controller")
			for _, name := range []string{"kyverno", "kyverno-policies", "tenants"} {
				s.awaitLive(name, revision)
			}
			apps := *s
			apps.namespace, apps.repo = "apps", s.repo.On("dev-team")
			k := apps.awaitUnit("dev-team", "ready", ready)
			if n := len(k.Status.Inventory.Entries); n != 2 {
				t.Errorf("the tenant has %d objects, want its HelmRepository and HelmRelease", n)
			}
			s.releasedIn("apps", "podinfo", row.podinfo)
			apps.confined(cluster)
		})
	}
}

// tenantsStage is a cluster of its own, as it is after the bootstrap: with the
// namespace, the account and the repository that the fleet's files name, and definitions that serve the
// versions of their kinds, which are older than those that the engine reads.
func tenantsStage(t *testing.T, platform, team string, tenancy Tenancy) (s *stage, revision string) {
	t.Helper()
	const address = "https://github.com/fluxcd/flux2-multi-tenancy"
	cluster := testkit.Start(t, testkit.WithControllers())
	server, reg, sigstore := testkit.NewGitServer(t), ocitest.NewRegistry(t), signtest.NewSigstore(t)
	repo := server.Repo("fleet")
	charts := charttest.NewServer(t, []testkit.Chart{standInPodinfo("6.7.1"), standInPodinfo("6.8.0"), standInPodinfo("6.9.0-rc.1")})
	engine := engineFor(t, cluster.Config, func(o *Options) {
		o.Tenancy = tenancy
		o.Mirrors = []string{address + "=" + repo.URL(), "oci://ghcr.io/=http://" + reg.Host() + "/", "https://stefanprodan.github.io/podinfo=" + charts.URL()}
	})
	s = stageOn(t, cluster.Config)
	s.engine, s.git, s.repo, s.namespace = engine, server, repo, "flux-system"
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	account := metav1.ObjectMeta{Name: "kustomize-controller", Namespace: s.namespace}
	s.create(&corev1.ServiceAccount{ObjectMeta: account})
	s.create(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "cluster-reconciler"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account.Name, Namespace: account.Namespace}}})
	s.serveToo("ocirepositories.source.toolkit.fluxcd.io", "v1beta2")
	s.serveToo("helmrepositories.source.toolkit.fluxcd.io", "v1beta1")
	s.serveToo("helmreleases.helm.toolkit.fluxcd.io", "v2beta1")
	const kyverno = "kyverno/manifests/kyverno"
	digest := reg.PushFiles(kyverno, map[string]string{
		"kyverno.yaml": standInDefinition("kyverno.io", "ClusterPolicy", "clusterpolicies", "Cluster") + "---\n" +
			manifest("v1", "Namespace", "", "kyverno") + "---\n" + manifest("v1", "ServiceAccount", "kyverno", "kyverno"),
	}, nil, "v1.14.4")
	sigstore.Sign(t, reg.Signable(kyverno, digest), signtest.CosignBundle, signtest.Signature{Subject: "https://github.com/kyverno/kyverno", Issuer: "https://token.actions.githubusercontent.com"})
	s.opaque("sigstore", map[string][]byte{verify.RootKey: sigstore.Root(t, signtest.RootParts{})})
	revision = "main@sha1:" + repo.CommitDir(platform)
	repo.On("dev-team").CommitDir(team)
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "flux-system", address })
	return s, revision
}

// serveToo has a definition serve an older version with the fields of the present one, as
// on a cluster that still had to.
func (s *stage) serveToo(name, version string) {
	s.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	crd.SetName(name)
	s.read(crd)
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil || len(versions) == 0 {
		s.Fatalf("definition %s: %v", name, err)
	}
	present, _ := versions[0].(map[string]any)
	older := maps.Clone(present)
	older["name"], older["storage"] = version, false
	delete(older, "deprecated")
	if err := unstructured.SetNestedSlice(crd.Object, append(versions, older), "spec", "versions"); err != nil {
		s.Fatal(err)
	}
	if err := s.client.Update(s.Context(), crd); err != nil {
		s.Fatal(err)
	}
}

// trustSigstore has a source trust the Sigstore of the test. It is not in Git, which does not say
// whom to trust, so it is nobody's drift.
func (s *stage) trustSigstore(name string) {
	s.Helper()
	o := s.awaitOCI(name, "applied", func(*sourcev1.OCIRepository) bool { return true })
	edit(s, o, func(o *sourcev1.OCIRepository) {
		o.Spec.Verify.TrustedRootSecretRef = &meta.LocalObjectReference{Name: "sigstore"}
	})
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
