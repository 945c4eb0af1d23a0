package controller

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// publisher is somebody else's controller: it serves archives.
type publisher struct {
	*httptest.Server
	mu      sync.Mutex
	archive []byte // guarded by mu
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = w.Write(p.archive)
	}))
	t.Cleanup(p.Close)
	return p
}

// serve replaces the archive and returns its digest.
func (p *publisher) serve(t *testing.T, files map[string]string) string {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.archive = out.Bytes()
	sum := sha256.Sum256(p.archive)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// publish says in the status of an ExternalArtifact what there is.
func (s *stage) publish(name string, artifact *meta.Artifact) {
	s.Helper()
	ea := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(ea)
	before := ea.DeepCopy()
	ea.Status.Artifact = artifact
	if err := s.client.Status().Patch(s.Context(), ea, client.MergeFrom(before)); err != nil {
		s.Fatal(err)
	}
}

// An artifact that somebody else's controller publishes is fetched, verified, and delivered.
func TestExternalArtifactOfOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := newPublisher(t)
	s.unit("theirs", fromArtifact("theirs"))
	s.awaitFailure("theirs", meta.ArtifactFailedReason, "ExternalArtifact", "not found")
	s.create(&sourcev1.ExternalArtifact{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: s.namespace},
		Spec:       sourcev1.ExternalArtifactSpec{SourceRef: &meta.NamespacedObjectKindReference{APIVersion: "example.com/v1", Kind: "Snapshot", Name: "x"}},
	})
	status := func(revision, digest string) *meta.Artifact {
		return &meta.Artifact{
			Path: "x", URL: p.URL + "/x.tar.gz", Revision: revision, Digest: digest, LastUpdateTime: metav1.Now(),
			Metadata: map[string]string{"org.opencontainers.image.revision": "commit-" + revision},
		}
	}
	s.publish("theirs", status("v1", p.serve(t, map[string]string{"a.yaml": configMap("a", "1")})))
	k := s.awaitLive("theirs", "v1")
	if k.Status.LastAppliedOriginRevision != "commit-v1" {
		t.Errorf("origin %q", k.Status.LastAppliedOriginRevision)
	}
	digest := p.serve(t, map[string]string{"a.yaml": configMap("a", "2")})
	s.publish("theirs", status("v2", digest))
	s.awaitLive("theirs", "v2")
	if s.config("a").Data["value"] != "2" {
		t.Error("the second archive was not delivered")
	}
}

// What is published and cannot be used is said to those who wait for it.
func TestExternalArtifactBadInput(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	p := newPublisher(t)
	right := p.serve(t, map[string]string{"a.yaml": configMap("a", "1")})
	wrong := "sha256:" + hex.EncodeToString(make([]byte, 32))
	tests := []struct {
		name, why, url, digest string
		words                  []string
	}{
		{"digest", "somebody changed it", p.URL, wrong, []string{"does not have the digest"}},
		{"algorithm", "nobody here can check it", p.URL, "md5:00", []string{`"md5"`}},
		{"tree", "a digest that is not of an archive", p.URL, "tree:00", []string{`"tree"`}},
		{"address", "it is no address", "file:///etc/passwd", right, []string{"no http or https URL"}},
		{"nobody", "nobody listens", "http://127.0.0.1:1/x", right, []string{"127.0.0.1:1"}},
	}
	for _, tt := range tests {
		s.create(&sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: tt.name, Namespace: s.namespace}})
		s.unit(tt.name, fromArtifact(tt.name))
		s.publish(tt.name, &meta.Artifact{Path: "x", URL: tt.url, Revision: "v1", Digest: tt.digest, LastUpdateTime: metav1.Now()})
	}
	for _, tt := range tests {
		s.awaitFailure(tt.name, meta.ArtifactFailedReason, append(tt.words, "ExternalArtifact", tt.name)...)
	}
	s.publish("digest", &meta.Artifact{Path: "x", URL: p.URL, Revision: "v1", Digest: right, LastUpdateTime: metav1.Now()})
	s.awaitLive("digest", "v1")
}
