package controller

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// Artifacts of all sources can be had under the URL and with the digest of their status, as other
// controllers of the ecosystem do: one engine serves, and another delivers what it fetched from there.
func TestArtifactsAreServed(t *testing.T) {
	t.Parallel()
	one, two := testkit.Start(t), newStage(t)
	s := stageOn(t, one.Config)
	s.engine = engineFor(t, one.Config, func(o *Options) { o.StorageAddr = "127.0.0.1:0" })
	revision := s.push0(map[string]string{
		"app/a.yaml": configMap("a", "1"), "other/b.yaml": configMap("b", "1"), "ignored/c.yaml": "x", ".sourceignore": "ignored/\n",
	})
	s.source()
	s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = []swapi.OutputArtifact{part("app", "app")} })
	g := s.awaitSource("fetched", func(g *sourcev1.GitRepository) bool { return says(g, metav1.ConditionTrue, meta.SucceededReason) })
	whole := s.fetched(g.Status.Artifact)
	if hash := strings.TrimPrefix(revision, "main@sha1:"); !strings.HasSuffix(g.Status.Artifact.URL, "/gitrepository/"+s.namespace+"/fleet/"+hash+".tar.gz") {
		t.Errorf("URL %s", g.Status.Artifact.URL)
	}
	if _, err := whole.Tree.Stat("ignored/c.yaml"); err == nil {
		t.Error("a file that is ignored is in the archive")
	}
	if data, err := whole.Tree.ReadFile("other/b.yaml"); string(data) != configMap("b", "1") {
		t.Errorf("other/b.yaml: %q, %v", data, err)
	}
	ea := s.awaitArtifact("app", "made", hasArtifact)
	if _, err := s.fetched(ea.Status.Artifact).Tree.Stat("a.yaml"); err != nil {
		t.Error(err)
	}
	parts := s.awaitGenerator("parts", "ready", func(g *swapi.ArtifactGenerator) bool { return says(g, metav1.ConditionTrue, meta.SucceededReason) })
	if ref := parts.Status.Inventory[0]; ref.Digest != ea.Status.Artifact.Digest || !strings.HasSuffix(ea.Status.Artifact.URL, "/"+ref.Filename) {
		t.Errorf("inventory %+v", ref)
	}

	two.create(&sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: two.namespace}})
	two.publish("theirs", ea.Status.Artifact)
	two.unit("theirs", fromArtifact("theirs"))
	two.awaitLive("theirs", ea.Status.Artifact.Revision)

	// A commit that changes nothing of an artifact changes nothing of its archive.
	second := s.push(map[string]string{"other/b.yaml": configMap("b", "2")})
	moved := s.awaitSource("at the second commit", atRevision(second))
	s.fetched(moved.Status.Artifact)
	s.fetched(g.Status.Artifact)
	after := s.awaitArtifact("app", "of the second commit", func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Status.Artifact.Metadata["org.opencontainers.image.revision"] == second
	})
	if was, is := ea.Status.Artifact, after.Status.Artifact; was.Digest != is.Digest || was.URL != is.URL {
		t.Errorf("nothing of the artifact changed: %+v, then %+v", was, is)
	}
}

// fetched gets an artifact from where its status says.
func (s *stage) fetched(a *meta.Artifact) source.Artifact {
	s.Helper()
	if a.Size == nil || *a.Size == 0 || !strings.HasPrefix(a.Digest, "sha256:") || !strings.HasSuffix(a.URL, a.Path) {
		s.Fatalf("status %+v", a)
	}
	got, err := archive.Fetch(s.Context(), http.DefaultTransport, a.URL, a.Digest, archive.Limits{})
	if err != nil {
		s.Fatal(err)
	}
	return got
}
