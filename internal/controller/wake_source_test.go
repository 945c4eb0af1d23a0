package controller

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// mute is a server that says nothing until it is told to refuse everything.
type mute struct {
	url    string
	refuse func()
}

func newMute(t *testing.T) mute {
	t.Helper()
	told := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-told:
			http.Error(w, "not today", http.StatusServiceUnavailable)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return mute{server.URL, func() { close(told) }}
}

// Those who use a source that never had an artifact say how it stands with it, of whatever
// kind it is: that it is not there, that it came, and that it failed.
func TestSourcesWithoutArtifactAreFollowed(t *testing.T) {
	t.Parallel()
	server := newMute(t)
	s := newStage(t)
	host := strings.TrimPrefix(server.url, "http://")
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: s.namespace} }
	s.create(&corev1.Secret{ObjectMeta: named("keys"), StringData: map[string]string{"accesskey": "a", "secretkey": "b"}})
	timeout := &metav1.Duration{Duration: 10 * patience} // the server decides when they fail
	rows := []struct {
		kind   string
		source client.Object
		came   string // what is said once it is there and has nothing
		why    string // what is said when it failed
	}{
		{sourcev1.GitRepositoryKind, &sourcev1.GitRepository{ObjectMeta: named("git"), Spec: sourcev1.GitRepositorySpec{
			URL: server.url + "/fleet.git", Interval: metav1.Duration{Duration: never}, Timeout: timeout,
		}}, "has no artifact yet", "503"},
		{sourcev1.OCIRepositoryKind, &sourcev1.OCIRepository{ObjectMeta: named("oci"), Spec: sourcev1.OCIRepositorySpec{
			URL: "oci://" + host + "/app", Insecure: true, Interval: metav1.Duration{Duration: never}, Timeout: timeout,
		}}, "has no artifact yet", "503"},
		{sourcev1.BucketKind, &sourcev1.Bucket{ObjectMeta: named("bucket"), Spec: sourcev1.BucketSpec{
			BucketName: "fleet", Endpoint: host, Insecure: true, SecretRef: &meta.LocalObjectReference{Name: "keys"},
			Interval: metav1.Duration{Duration: never}, Timeout: timeout,
		}}, "has no artifact yet", "503"},
		{sourcev1.ExternalArtifactKind, &sourcev1.ExternalArtifact{ObjectMeta: named("external")}, "has no artifact yet", "503"},
		{sourcev1.HelmChartKind, &sourcev1.HelmChart{ObjectMeta: named("chart"), Spec: sourcev1.HelmChartSpec{
			Chart: "web", Interval: metav1.Duration{Duration: never},
			SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: sourcev1.HelmRepositoryKind, Name: "charts"},
		}}, "HelmRepository", "503"},
	}
	for _, row := range rows {
		name := row.source.GetName()
		if row.kind != sourcev1.HelmChartKind {
			s.unit(name, func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: row.kind, Name: name}
			})
		}
		if row.kind != sourcev1.GitRepositoryKind && row.kind != sourcev1.BucketKind { // no charts are there
			s.release(name, func(h *helmv2.HelmRelease) {
				h.Spec.ChartRef = &helmv2.CrossNamespaceSourceReference{Kind: row.kind, Name: name}
			})
		}
	}
	// all waits until every user of a source says what it is to say.
	all := func(what string, word func(i int) string) {
		for i, row := range rows {
			name := row.source.GetName()
			if row.kind != sourcev1.HelmChartKind {
				s.awaitFailure(name, meta.ArtifactFailedReason, row.kind, word(i))
			}
			if row.kind != sourcev1.GitRepositoryKind && row.kind != sourcev1.BucketKind {
				s.awaitReleaseFailure(name, reasonSourceNotReady, row.kind, word(i))
			}
		}
		s.Logf("all said %s", what)
	}
	all("that it is missing", func(int) string { return "not found; create it" })
	for _, row := range rows {
		s.create(row.source)
	}
	all("that it came", func(i int) string { return rows[i].came })
	s.create(&sourcev1.HelmRepository{ObjectMeta: named("charts"), Spec: sourcev1.HelmRepositorySpec{URL: server.url, Interval: metav1.Duration{Duration: never}, Timeout: timeout}})
	external := &sourcev1.ExternalArtifact{ObjectMeta: named("external")}
	s.read(external)
	external.Status.Artifact = &meta.Artifact{
		URL: server.url + "/a.tar.gz", Path: "a.tar.gz", Revision: "1", Digest: "sha256:" + strings.Repeat("0", 64), LastUpdateTime: metav1.Now(),
	}
	if err := s.client.Status().Update(t.Context(), external); err != nil {
		t.Fatal(err)
	}
	server.refuse()
	all("why it failed", func(i int) string { return rows[i].why })
}
