package controller

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// A platform repository with a folder per cluster and a repository per tenant:
// the addresses on a public host lead to loopback by mirrors and nothing else is
// changed. Whatever needs nothing beyond this version is delivered; all else says
// what it needs.
func TestFleetOfTenants(t *testing.T) {
	t.Parallel()
	platform, tenant := fleet(t, "multi-tenancy"), fleet(t, "multi-tenancy-dev-team")
	for _, cluster := range []string{"staging", "production"} {
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			s, revision := tenantsStage(t, platform, tenant)
			s.unit("flux-system", func(k *kustomizev1.Kustomization) {
				k.Spec.Path, k.Spec.TargetNamespace = "./clusters/"+cluster, ""
			})
			s.awaitLive("flux-system", revision)
			delivered := 0
			for name, needs := range s.needs() {
				if needs != nil {
					s.awaitFailure(name, report.ReasonNotSupported, needs.Error())
					delivered++
				}
			}
			if delivered != 3 {
				t.Errorf("%d Kustomizations of the cluster need what is not supported, want all 3: they run as a service account", delivered)
			}
			s.tenantsOf(cluster, revision)
			s.kindsNotServed()
		})
	}
}

// tenantsStage is a cluster of its own, as it is after the bootstrap: with the
// namespace and the repository that the fleet's files name.
func tenantsStage(t *testing.T, platform, tenant string) (s *stage, revision string) {
	const address = "https://github.com/fluxcd/flux2-multi-tenancy"
	cluster := testkit.Start(t, testkit.WithControllers())
	server := testkit.NewGitServer(t)
	repo := server.Repo("fleet")
	engine := engineFor(t, cluster.Config, func(o *Options) { o.Mirrors = []string{address + "=" + repo.URL()} })
	s = stageOn(t, cluster.Config)
	s.engine, s.git, s.repo, s.namespace = engine, server, repo, "flux-system"
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	revision = "main@sha1:" + repo.CommitDir(platform)
	repo.On("dev-team").CommitDir(tenant)
	s.source(func(g *sourcev1.GitRepository) { g.Spec.URL = address })
	return s, revision
}

// needs returns what every Kustomization of the namespace needs that is not
// supported, nil for those that need nothing.
func (s *stage) needs() map[string]error {
	s.Helper()
	var list kustomizev1.KustomizationList
	if err := s.client.List(s.Context(), &list, client.InNamespace(s.namespace)); err != nil {
		s.Fatal(err)
	}
	out := map[string]error{}
	for i := range list.Items {
		out[list.Items[i].Name] = supported(&list.Items[i])
	}
	return out
}

// tenantsOf delivers the folder of tenants, whose content is plain, as the
// administrator: its repository is fetched, its Kustomization says what it needs.
func (s *stage) tenantsOf(cluster, revision string) {
	s.Helper()
	s.unit("tenants-plain", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.TargetNamespace = "./tenants/"+cluster, ""
	})
	s.awaitLive("tenants-plain", revision)
	apps := *s
	apps.namespace = "apps"
	await(&apps, &sourcev1.GitRepositoryList{}, "dev-team", "fetched by the mirror", func(g *sourcev1.GitRepository) bool {
		return says(g, metav1.ConditionTrue, meta.SucceededReason)
	})
	apps.awaitFailure("dev-team", report.ReasonNotSupported, "spec.serviceAccountName")
	// The tenant's own folder holds a Helm release, a kind that this cluster lacks.
	apps.unit("plain", func(k *kustomizev1.Kustomization) {
		k.Spec.Path, k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "./"+cluster, "dev-team", ""
	})
	apps.awaitFailure("plain", meta.ReconciliationFailedReason, "HelmRelease/apps/podinfo", "does not serve this kind")
}

// kindsNotServed delivers folders with kinds that the cluster lacks.
func (s *stage) kindsNotServed() {
	s.Helper()
	for path, words := range map[string]string{"kyverno": "OCIRepository/flux-system/kyverno-controller", "kyverno-policies": "ClusterPolicy/verify-flux-images"} {
		name := path + "-plain"
		s.unit(name, func(k *kustomizev1.Kustomization) {
			k.Spec.Path, k.Spec.TargetNamespace = "./infrastructure/"+path, ""
		})
		s.awaitFailure(name, meta.ReconciliationFailedReason, words, "does not serve this kind")
	}
}
