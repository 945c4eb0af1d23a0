package controller

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

// An index is fetched, told of and served; asking again costs a conditional request.
func TestHelmRepository(t *testing.T) {
	t.Parallel()
	s := stageServing(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	s.helmRepository(server.URL(), func(r *sourcev1.HelmRepository) {
		r.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{}}}
	})
	r := s.awaitIndexed()
	sent, err := os.ReadFile(filepath.Join(server.Root(), "index.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(sent)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	a := r.Status.Artifact
	if a == nil || a.Revision != digest || a.Digest != digest || a.Size == nil || *a.Size != int64(len(sent)) || r.Status.URL != a.URL {
		t.Fatalf("artifact %+v, URL %q", a, r.Status.URL)
	}
	if got := download(t, a.URL); !bytes.Equal(got, sent) {
		t.Errorf("served %d bytes, sent were %d", len(got), len(sent))
	}
	if c := report.Condition(r, sourcev1.ArtifactInStorageCondition); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("conditions %s", standingOf(r))
	}
	s.awaitEvent("NewArtifact", "stored fetched index", server.URL())

	asked := s.ask(r)
	r = s.awaitHelmRepository("asked again", func(r *sourcev1.HelmRepository) bool { return r.Status.LastHandledReconcileAt == asked })
	if requests := server.Requests(); len(requests) != 2 || requests[1].Status != http.StatusNotModified {
		t.Errorf("requests %+v", requests)
	}
	server.Add(podinfo("1.1.0"))
	s.ask(r)
	s.awaitHelmRepository("another index", func(r *sourcev1.HelmRepository) bool { return r.Status.Artifact.Revision != digest })
}

// The interval brings it back by itself; what goes takes along what it served.
func TestHelmRepositoryInterval(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	r := s.helmRepository(server.URL(), func(r *sourcev1.HelmRepository) { r.Spec.Interval.Duration = shortestWait })
	first := s.awaitIndexed().Status.Artifact.Revision
	server.Add(podinfo("1.1.0"))
	s.awaitHelmRepository("another index", func(r *sourcev1.HelmRepository) bool { return r.Status.Artifact.Revision != first })
	s.helmChart("podinfo")
	s.awaitChartAt("podinfo", "1.1.0")
	s.delete(r)
	edit(s, &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "podinfo", Namespace: s.namespace}}, func(hc *sourcev1.HelmChart) { hc.Spec.Version = "1.0.0" })
	hc := s.awaitChartFailure("podinfo", reasonSourceUnavailable, "HelmRepository", "does not exist")
	if hc.Status.Artifact == nil || hc.Status.Artifact.Revision != "1.1.0" {
		t.Errorf("the last artifact is gone: %+v", hc.Status.Artifact)
	}
}

// Credentials and certificates come from Secrets, also later, and for archives as well.
func TestHelmRepositoryCredentials(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	elsewhere := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")}, charttest.BasicAuth("ann", "secret"))
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")}, charttest.BasicAuth("ann", "secret"), charttest.TLS())
	r := s.helmRepository(server.URL(), func(r *sourcev1.HelmRepository) {
		r.Spec.SecretRef, r.Spec.CertSecretRef = &meta.LocalObjectReference{Name: "login"}, &meta.LocalObjectReference{Name: "certs"}
	})
	failing := func(words ...string) {
		t.Helper()
		s.awaitHelmRepository(sourcev1.AuthenticationFailedReason, func(r *sourcev1.HelmRepository) bool {
			return says(r, metav1.ConditionFalse, sourcev1.AuthenticationFailedReason, words...)
		})
	}
	failing("Secret/"+s.namespace+"/login", "spec.secretRef")
	login := s.opaque("login", map[string][]byte{"username": []byte("ann"), "password": []byte("wrong")})
	failing("Secret/"+s.namespace+"/certs", "spec.certSecretRef")
	s.opaque("certs", map[string][]byte{"ca.crt": server.CA()})
	failing("401", "spec.secretRef")
	login.Data["password"] = []byte("secret")
	if err := s.client.Update(t.Context(), login); err != nil {
		t.Fatal(err)
	}
	s.awaitIndexed()
	s.helmChart("podinfo")
	s.awaitChartAt("podinfo", "1.0.0")

	before := s.awaitIndexed().Status.Artifact.Revision
	server.Index(elsewhere.URL())
	s.ask(r)
	s.awaitHelmRepository("another index", func(r *sourcev1.HelmRepository) bool { return r.Status.Artifact.Revision != before })
	s.helmChart("elsewhere")
	s.awaitChartFailure("elsewhere", sourcev1.AuthenticationFailedReason, elsewhere.URL(), "401")
	edit(s, r, func(r *sourcev1.HelmRepository) { r.Spec.PassCredentials = true })
	s.awaitChartAt("elsewhere", "1.0.0")
}

// A repository that hangs, is suspended or broken: one condition, and the last index goes on to serve.
func TestHelmRepositoryBadInput(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	r := s.helmRepository(server.URL(), func(r *sourcev1.HelmRepository) { r.Spec.Timeout.Duration = shortestWait })
	good := s.awaitIndexed().Status.Artifact.Revision
	failing := func(reason string, words ...string) {
		t.Helper()
		s.ask(r)
		got := s.awaitHelmRepository(reason, func(r *sourcev1.HelmRepository) bool { return says(r, metav1.ConditionFalse, reason, words...) })
		if c := report.Condition(got, sourcev1.FetchFailedCondition); c == nil || c.Reason != reason || got.Status.Artifact.Revision != good {
			t.Errorf("conditions %s, artifact %+v", standingOf(got), got.Status.Artifact)
		}
	}
	server.Write("index.yaml", []byte("apiVersion: v1\nentries:\n  podinfo:\n  - version: \"1.0.0\n"))
	failing(sourcev1.IndexationFailedReason, "line 4", "have the index made anew")
	server.Hang(true)
	failing(meta.FailedReason, "has not answered in full within 1s", "spec.timeout")
	server.Hang(false)
	server.Refuse("", http.StatusForbidden)
	failing(sourcev1.AuthenticationFailedReason, "403")
	s.helmChart("podinfo") // the archive cannot be had, the index is known
	s.awaitChartFailure("podinfo", sourcev1.AuthenticationFailedReason, "podinfo-1.0.0.tgz")
	edit(s, r, func(r *sourcev1.HelmRepository) { r.Spec.URL = "oci://" + server.URL()[len("http://"):] })
	failing(sourcev1.URLInvalidReason, "spec.type")
}

// One that is suspended does nothing, and after a restart still has what it had.
func TestHelmRepositorySuspended(t *testing.T) {
	t.Parallel()
	config := testkit.Start(t).Config
	dir := t.TempDir()
	e, err := startEngine(config, dir)
	if err != nil {
		t.Fatal(err)
	}
	s := stageOn(t, config)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0"), podinfo("1.1.0")})
	r := s.helmRepository(server.URL())
	s.awaitIndexed()
	s.helmChart("podinfo")
	s.helmChart("suspended")
	s.awaitChartAt("podinfo", "1.1.0")
	s.awaitChartAt("suspended", "1.1.0")
	edit(s, r, func(r *sourcev1.HelmRepository) { r.Spec.Suspend = true })
	edit(s, &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "suspended", Namespace: s.namespace}}, func(hc *sourcev1.HelmChart) { hc.Spec.Suspend = true })
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	asked := len(server.Requests())
	s.engine = runEngine(config, dir)
	t.Cleanup(func() { _ = s.engine.stop() })
	s.helmChart("another", func(c *sourcev1.HelmChartSpec) { c.Version = "1.0.0" })
	s.awaitChartAt("another", "1.0.0")
	s.ask(&sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "suspended", Namespace: s.namespace}})
	edit(s, &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "podinfo", Namespace: s.namespace}}, func(hc *sourcev1.HelmChart) { hc.Spec.Version = "1.0.0" })
	s.awaitChartAt("podinfo", "1.0.0")
	if more := server.Requests()[asked:]; len(more) != 1 || more[0].Path != "/podinfo-1.0.0.tgz" {
		t.Errorf("asked after the restart: %+v", more)
	}
	hc := s.awaitHelmChart("suspended", "there", func(*sourcev1.HelmChart) bool { return true })
	if hc.Status.LastHandledReconcileAt != "" || hc.Status.Artifact.Revision != "1.1.0" {
		t.Errorf("a suspended chart was worked on: %+v", hc.Status)
	}
}
