package controller

import (
	"slices"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/report"
)

// Only the directories that are listed are there.
func TestGitSparseCheckout(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "lib/b.yaml": configMap("b", "1")})
	s.source(func(g *sourcev1.GitRepository) { g.Spec.SparseCheckout = []string{"./app", "nothing"} })
	s.awaitSourceFailure(sourcev1.GitOperationFailedReason, "sparse checkout dir 'nothing' does not exist in repository")
	edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.SparseCheckout = []string{"./app"} })
	g := s.awaitSource("fetched", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
	if !slices.Equal(g.Status.ObservedSparseCheckout, []string{"./app"}) {
		t.Errorf("observed %q", g.Status.ObservedSparseCheckout)
	}
	s.unit("all", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./" })
	s.awaitLive("all", g.Status.Artifact.Revision)
	if got := s.names(""); got != "a" {
		t.Errorf("delivered %q, want a", got)
	}
}

// What the submodules hold at the commits that are recorded is delivered.
func TestGitSubmodules(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	lib := s.git.Repo("lib").Commit(map[string]string{"b.yaml": configMap("b", "1")})
	modules := gitserve.File{Data: []byte("[submodule \"lib\"]\n\tpath = app/lib\n\turl = ../lib.git\n")}
	files := map[string]gitserve.File{"app/a.yaml": {Data: []byte(configMap("a", "1"))}, ".gitmodules": modules, "app/lib": {Data: []byte(lib), Mode: "160000"}}
	first := "main@sha1:" + s.repo.CommitFiles(files)
	s.source(func(g *sourcev1.GitRepository) { g.Spec.RecurseSubmodules = true })
	s.unit("app")
	s.awaitLive("app", first)
	if got := s.names(""); got != "a b" {
		t.Errorf("delivered %q, want a b", got)
	}
	files["app/lib"] = gitserve.File{Data: []byte(s.git.Repo("lib").Commit(map[string]string{"b.yaml": configMap("b", "2")})), Mode: "160000"}
	second := "main@sha1:" + s.repo.CommitFiles(files)
	s.ask(s.fleet())
	s.awaitLive("app", second)
	if got := s.config("b").Data["value"]; got != "2" {
		t.Errorf("b is %s, want 2", got)
	}
	g := s.fleet()
	s.read(g)
	if !g.Status.ObservedRecurseSubmodules {
		t.Errorf("not observed: %+v", g.Status)
	}
}

// includes makes the fleet include the repository other.
func includes(from, to string) func(*sourcev1.GitRepository) {
	return func(g *sourcev1.GitRepository) {
		g.Spec.Include = []sourcev1.GitRepositoryInclude{{GitRepositoryRef: meta.LocalObjectReference{Name: "other"}, FromPath: from, ToPath: to}}
	}
}

// What another source holds is part of this one, and a change there is one here, at once.
func TestGitInclude(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	other := s.git.Repo("other")
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source(includes("deploy", "/app/included"))
	s.unit("app")
	s.awaitSource("waiting", func(g *sourcev1.GitRepository) bool {
		c := report.Condition(g, sourcev1.IncludeUnavailableCondition)
		return c != nil && c.Status == metav1.ConditionTrue && c.Reason == reasonNotFound && says(g, "False", reasonNotFound, "/other")
	})
	first := "main@sha1:" + other.Commit(map[string]string{"deploy/b.yaml": configMap("b", "1"), "rest/c.yaml": configMap("c", "1")})
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "other", other.URL() })
	g := s.awaitSource("composed", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
	if report.Condition(g, sourcev1.IncludeUnavailableCondition) != nil || g.Status.Artifact.Revision != revision {
		t.Errorf("composed: %s at %s", standingOf(g), g.Status.Artifact.Revision)
	}
	if len(g.Status.IncludedArtifacts) != 1 || g.Status.IncludedArtifacts[0].Revision != first || len(g.Status.ObservedInclude) != 1 {
		t.Errorf("included %+v, observed %+v", g.Status.IncludedArtifacts, g.Status.ObservedInclude)
	}
	s.awaitLive("app", revision)
	if got := s.names(""); got != "a b" {
		t.Errorf("delivered %q, want a b", got)
	}
	digest := g.Status.Artifact.Digest

	second := "main@sha1:" + other.Commit(map[string]string{"deploy/b.yaml": configMap("b", "2")})
	asked := s.fleet()
	asked.Name = "other"
	s.ask(asked)
	g = s.awaitSource("composed anew", func(g *sourcev1.GitRepository) bool {
		return len(g.Status.IncludedArtifacts) == 1 && g.Status.IncludedArtifacts[0].Revision == second
	})
	if g.Status.Artifact.Digest == digest || g.Status.Artifact.Revision != revision {
		t.Errorf("a change of what is included: %s with the digest %s, before %s", g.Status.Artifact.Revision, g.Status.Artifact.Digest, digest)
	}
	await(s, &corev1.ConfigMapList{}, "b", "as included now", func(m *corev1.ConfigMap) bool { return m.Data["value"] == "2" })
	ignore := "/*\n!/app\n/app/included\n"
	edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.Ignore = &ignore })
	s.awaitGone(s.configOf("b"), &corev1.ConfigMapList{})
}

func (s *stage) configOf(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
}

func TestGitIncludeMistakes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	other := s.git.Repo("other")
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "file": "x"})
	other.Commit(map[string]string{"deploy/b.yaml": configMap("b", "1")})
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "other", other.URL() })
	for _, row := range []struct {
		name, reason, from, to, want, word string
	}{
		{"missing", "there is nothing to copy", "nothing", "x", reasonCopyFailure, "nothing"},
		{"from-outside", "files of the machine", "../../etc", "x", reasonIllegalPath, "outside"},
		{"to-outside", "over the files of others", "deploy", "x/../../y", reasonIllegalPath, "outside"},
		{"over-a-file", "a file is in the way", "deploy", "file", reasonIllegalPath, "file"},
	} {
		s.source(func(g *sourcev1.GitRepository) { g.Name = row.name }, includes(row.from, row.to))
		g := s.awaitRepository(row.name, row.reason, func(g *sourcev1.GitRepository) bool { return says(g, "False", row.want, row.word, "/other") })
		if c := report.Condition(g, sourcev1.StorageOperationFailedCondition); c == nil || c.Reason != row.want || g.Status.Artifact != nil {
			t.Errorf("%s: %s, artifact %v", row.name, standingOf(g), g.Status.Artifact)
		}
	}
	loop := func(name string) []sourcev1.GitRepositoryInclude {
		return []sourcev1.GitRepositoryInclude{{GitRepositoryRef: meta.LocalObjectReference{Name: name}}}
	}
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.Include = "loop-a", loop("loop-b") })
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.Include = "loop-b", loop("loop-a") })
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.Include = "self", loop("self") })
	s.awaitRepository("loop-b", "in a circle", func(g *sourcev1.GitRepository) bool {
		return says(g, "False", report.ReasonCircularDependency, "loop-b → loop-a → loop-b")
	})
	s.awaitRepository("self", "in a circle", func(g *sourcev1.GitRepository) bool {
		return says(g, "False", report.ReasonCircularDependency, "self → self")
	})
}
