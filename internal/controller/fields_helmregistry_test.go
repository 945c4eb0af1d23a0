package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

func inRegistry(r *sourcev1.HelmRepository) {
	r.Spec.Type, r.Spec.Insecure = sourcev1.HelmRepositoryTypeOCI, true
}

// A repository in a registry has no status; its charts are found by tags, and what is held is not asked for again.
func TestHelmRepositoryInRegistry(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := ocitest.NewRegistry(t)
	for _, version := range []string{"1.0.0", "1.1.0", "2.0.0-rc.1", "1.1.0+build"} {
		r.PushChart("charts/podinfo", podinfo(version).Archive(t))
	}
	repo := s.helmRepository(r.URL("charts"), inRegistry)
	s.helmChart("newest")
	s.helmChart("exact", func(c *sourcev1.HelmChartSpec) { c.Version = "1.0.0" })
	s.helmChart("build", func(c *sourcev1.HelmChartSpec) { c.Version = "1.1.0+build" })
	s.helmChart("values", func(c *sourcev1.HelmChartSpec) {
		c.Version, c.ValuesFiles = "1.0.0", []string{"values.yaml", "values-prod.yaml"}
	})
	for i := range 10 {
		s.helmChart(fmt.Sprintf("same-%d", i), func(c *sourcev1.HelmChartSpec) { c.Version = "1.0.0" })
	}
	for name, want := range map[string]string{"exact": "1.0.0", "build": "1.1.0+build", "values": "1.0.0+1"} {
		s.awaitChartAt(name, want)
	}
	s.awaitHelmChart("newest", "of version 1.1.0", func(hc *sourcev1.HelmChart) bool {
		return report.IsReady(hc, hc.Status.ObservedGeneration) && strings.HasPrefix(hc.Status.Artifact.Revision, "1.1.0")
	})
	for i := range 10 {
		s.awaitChartAt(fmt.Sprintf("same-%d", i), "1.0.0")
	}
	c, err := helmchart.Read(podinfo("1.0.0").Archive(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Asked("GET", "/blobs/"+c.Digest); n != 1 {
		t.Errorf("the chart was downloaded %d times", n)
	}
	s.read(repo)
	if st := repo.Status; st.Artifact != nil || len(st.Conditions) > 0 || st.URL != "" {
		t.Errorf("status %+v", st)
	}
	asked := len(r.Requests())
	s.ask(repo)
	edit(s, repo, func(r *sourcev1.HelmRepository) { r.Spec.Interval.Duration++ })
	s.ask(repo)
	hc := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "newest", Namespace: s.namespace}}
	request := s.ask(hc)
	s.awaitHelmChart("newest", "asked", func(hc *sourcev1.HelmChart) bool { return hc.Status.LastHandledReconcileAt == request })
	for _, q := range r.Requests()[asked:] {
		if strings.Contains(q.Path, "/blobs/") || strings.Contains(q.Path, "1.0.0") {
			t.Errorf("asked for what is held: %+v", q)
		}
	}
	r.PushChart("charts/podinfo", podinfo("1.2.0").Archive(t))
	s.ask(hc)
	s.awaitChartAt("newest", "1.2.0")
}

// Logins are those of the Secret, in either form; what the registry refuses or lacks is said.
func TestHelmRepositoryLogin(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := ocitest.NewRegistry(t, ocitest.BasicAuth("ann", "secret"), ocitest.TLS())
	r.PushChart("charts/podinfo", podinfo("1.0.0").Archive(t))
	r.PushFiles("charts/other", map[string]string{"a": "b"}, nil, "1.0.0")
	s.opaque("plain", map[string][]byte{"username": []byte("ann"), "password": []byte("secret")})
	s.opaque("docker", map[string][]byte{".dockerconfigjson": []byte(r.DockerConfig("ann", "secret"))})
	s.opaque("wrong", map[string][]byte{"username": []byte("ann"), "password": []byte("x")})
	s.opaque("certs", map[string][]byte{"ca.crt": r.CA()})
	repo := s.helmRepository(r.URL("charts"), func(r *sourcev1.HelmRepository) {
		inRegistry(r)
		r.Spec.Insecure, r.Spec.SecretRef, r.Spec.CertSecretRef = false, &meta.LocalObjectReference{Name: "wrong"}, &meta.LocalObjectReference{Name: "certs"}
	})
	s.helmChart("podinfo")
	s.awaitChartFailure("podinfo", sourcev1.AuthenticationFailedReason, r.Host())
	edit(s, repo, func(r *sourcev1.HelmRepository) { r.Spec.SecretRef.Name = "plain" })
	s.awaitChartAt("podinfo", "1.0.0")
	edit(s, repo, func(r *sourcev1.HelmRepository) { r.Spec.SecretRef.Name = "docker" })
	s.helmChart("docker", func(c *sourcev1.HelmChartSpec) { c.Version = "1.0.0" })
	s.awaitChartAt("docker", "1.0.0")
	for name, row := range map[string]struct {
		change func(*sourcev1.HelmChartSpec)
		reason string
		words  []string
	}{
		"no-chart":   {func(c *sourcev1.HelmChartSpec) { c.Chart = "none" }, reasonChartPull, []string{"charts/none"}},
		"no-version": {func(c *sourcev1.HelmChartSpec) { c.Version = ">=2" }, reasonChartReference, []string{"there are 1.0.0"}},
		"no-such":    {func(c *sourcev1.HelmChartSpec) { c.Version = "3.0.0" }, reasonChartPull, []string{"3.0.0"}},
		"other":      {func(c *sourcev1.HelmChartSpec) { c.Chart, c.Version = "other", "1.0.0" }, reasonChartPull, []string{"no layer with a Helm chart"}},
	} {
		s.helmChart(name, row.change)
		hc := s.awaitChartFailure(name, row.reason, row.words...)
		t.Log(report.Condition(hc, meta.ReadyCondition).Message)
	}
	edit(s, repo, func(r *sourcev1.HelmRepository) { r.Spec.SecretRef, r.Spec.Provider = nil, sourcev1.AmazonOCIProvider })
	s.helmChart("cloud")
	s.awaitChartFailure("cloud", sourcev1.AuthenticationFailedReason, "aws")
}

// A repository changes its type and back: its charts follow.
func TestHelmRepositoryTypeChanges(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	r := ocitest.NewRegistry(t)
	r.PushChart("charts/podinfo", podinfo("2.0.0").Archive(t))
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	repo := s.helmRepository(server.URL())
	s.helmChart("podinfo")
	s.awaitChartAt("podinfo", "1.0.0")
	edit(s, repo, func(o *sourcev1.HelmRepository) { inRegistry(o); o.Spec.URL = r.URL("charts") })
	s.awaitChartAt("podinfo", "2.0.0")
	s.awaitHelmRepository("without a status", func(r *sourcev1.HelmRepository) bool {
		return r.Status.Artifact == nil && len(r.Status.Conditions) == 0
	})
	edit(s, repo, func(o *sourcev1.HelmRepository) {
		o.Spec.Type, o.Spec.URL = sourcev1.HelmRepositoryTypeDefault, server.URL()
	})
	s.awaitChartAt("podinfo", "1.0.0")
}

// An index over HTTP may say that its charts are in a registry; the engine follows mirrors in both.
func TestHelmChartOfIndexInRegistry(t *testing.T) {
	t.Parallel()
	one := testkit.Start(t)
	server := charttest.NewServer(t, nil)
	r := ocitest.NewRegistry(t)
	e := engineFor(t, one.Config, func(o *Options) {
		o.Mirrors = []string{"https://charts.invalid/stable=" + server.URL(), "oci://registry.invalid/charts=http://" + r.Host() + "/mirror"}
	})
	s := stageOn(t, one.Config)
	s.engine = e
	r.PushChart("mirror/podinfo", podinfo("1.0.0").Archive(t))
	server.Write("index.yaml", []byte("apiVersion: v1\nentries:\n  podinfo:\n  - version: 1.0.0\n    urls:\n    - oci://registry.invalid/charts/podinfo:1.0.0\n"))
	s.helmRepository("https://charts.invalid/stable")
	s.helmChart("podinfo")
	s.awaitChartAt("podinfo", "1.0.0")
}

// A chart may lie in a bucket.
func TestHelmChartFromBucket(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s3.Put(podinfo("1.0.0").In("charts"))
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s.bucket(s3.Server)
	inBucket := func(c *sourcev1.HelmChartSpec) {
		c.Chart, c.SourceRef = "charts/podinfo", sourcev1.LocalHelmChartSourceReference{Kind: sourcev1.BucketKind, Name: "objects"}
	}
	s.helmChart("podinfo", inBucket)
	s.helmChart("revision", inBucket, func(c *sourcev1.HelmChartSpec) { c.ReconcileStrategy = sourcev1.ReconcileStrategyRevision })
	hc := s.awaitChartAt("podinfo", "1.0.0")
	b := &sourcev1.Bucket{}
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "objects"}, b); err != nil {
		t.Fatal(err)
	}
	revision := b.Status.Artifact.Revision
	if hc.Status.ObservedSourceArtifactRevision != revision {
		t.Errorf("observed %s, want %s", hc.Status.ObservedSourceArtifactRevision, revision)
	}
	s.awaitChartAt("revision", "1.0.0+"+strings.TrimPrefix(revision, "sha256:")[:12])
}
