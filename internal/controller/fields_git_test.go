package controller

import (
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// Every way to say which state of a repository is wanted, all of one repository.
func TestGitReferences(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	one := s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.repo.Tag("v1.0.0", one)
	two := s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	s.repo.TagAnnotated("v1.1.0", two)
	s.repo.Tag("v2.0.0", two)
	s.repo.SetRef("refs/pull/7/head", one)
	s.repo.Branch("master", one)
	rows := []struct {
		name, reason string
		ref          *sourcev1.GitRepositoryRef
		want         string
	}{
		{name: "none", reason: "the default branch of the API", want: "master@sha1:" + one},
		{name: "branch", reason: "the head of it", ref: &sourcev1.GitRepositoryRef{Branch: "main"}, want: "main@sha1:" + two},
		{name: "tag", reason: "before a branch", ref: &sourcev1.GitRepositoryRef{Tag: "v1.0.0", Branch: "main"}, want: "v1.0.0@sha1:" + one},
		{name: "semver", reason: "the highest in the range, before a tag", ref: &sourcev1.GitRepositoryRef{SemVer: "1.x", Tag: "v1.0.0"}, want: "v1.1.0@sha1:" + two},
		{name: "name", reason: "any reference, before a range", ref: &sourcev1.GitRepositoryRef{Name: "refs/pull/7/head", SemVer: "1.x"}, want: "refs/pull/7/head@sha1:" + one},
		{name: "commit", reason: "before all else", ref: &sourcev1.GitRepositoryRef{Commit: one, Name: "refs/heads/main"}, want: "sha1:" + one},
		{name: "commit-on-branch", reason: "the branch is named with it", ref: &sourcev1.GitRepositoryRef{Commit: one, Branch: "main"}, want: "main@sha1:" + one},
	}
	for _, row := range rows {
		s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.Reference = row.name, row.ref })
	}
	for _, row := range rows {
		g := s.awaitRepository(row.name, "fetched", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
		if got := g.Status.Artifact.Revision; got != row.want {
			t.Errorf("%s: %s: revision %s, want %s", row.name, row.reason, got, row.want)
		}
		if c := report.Condition(g, sourcev1.ArtifactInStorageCondition); c == nil || c.Status != metav1.ConditionTrue {
			t.Errorf("%s: conditions %s", row.name, standingOf(g))
		}
		if a := g.Status.Artifact; a.Digest == "" || a.LastUpdateTime.IsZero() || a.Path == "" {
			t.Errorf("%s: artifact %+v", row.name, a)
		}
	}
}

// Files that are ignored are not there for those who use the source; the pattern
// is in the status.
func TestGitIgnore(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{
		"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"),
		"app/c.yaml": configMap("c", "1"), ".sourceignore": "app/c.yaml\n",
	})
	pattern := "app/b.yaml\n"
	s.source(func(g *sourcev1.GitRepository) { g.Spec.Ignore = &pattern })
	s.unit("app")
	g := s.awaitSource("fetched", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
	s.awaitLive("app", g.Status.Artifact.Revision)
	if got := s.names(""); got != "a" {
		t.Errorf("delivered %q, want a: b and c are ignored", got)
	}
	if g.Status.ObservedIgnore == nil || *g.Status.ObservedIgnore != pattern {
		t.Errorf("observed %v", g.Status.ObservedIgnore)
	}
	edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.Ignore = nil })
	await(s, &corev1.ConfigMapList{}, "b", "delivered once it is ignored no longer", func(*corev1.ConfigMap) bool { return true })
}

// A source is looked at again at its interval, and at once when asked; suspended
// it keeps what it has.
func TestGitInterval(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source(func(g *sourcev1.GitRepository) { g.Spec.Interval = metav1.Duration{Duration: time.Second} })
	s.unit("app")
	s.awaitLive("app", first)
	second := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	s.awaitLive("app", second)

	edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.Suspend = true })
	s.source(func(g *sourcev1.GitRepository) { g.Name = "other" })
	third := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "3")})
	s.ask(s.fleet())
	other := s.fleet()
	other.Name = "other"
	s.ask(other)
	s.awaitRepository("other", "at the third commit", atRevision(third))
	k, g := s.kustomization("app"), s.fleet()
	s.read(k)
	s.read(g)
	if g.Status.Artifact.Revision != second || k.Status.LastAppliedRevision != second {
		t.Errorf("suspended, the source is at %s and its user at %s", g.Status.Artifact.Revision, k.Status.LastAppliedRevision)
	}
	edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.Suspend, g.Spec.Interval.Duration = false, never })
	s.awaitLive("app", third)
	request := s.ask(s.fleet())
	s.awaitSource("asked", func(g *sourcev1.GitRepository) bool { return g.Status.LastHandledReconcileAt == request })
}

// Credentials come from a Secret, and corrected ones take effect at once.
func TestGitSecret(t *testing.T) {
	t.Parallel()
	s := newStage(t, testkit.GitBasicAuth("user", "right"))
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login", Namespace: s.namespace}, StringData: map[string]string{"username": "user", "password": "wrong"}}
	s.create(secret)
	s.source(func(g *sourcev1.GitRepository) { g.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"} })
	g := s.awaitSourceFailure(sourcev1.AuthenticationFailedReason)
	if strings.Contains(standingOf(g), "wrong") {
		t.Errorf("the message shows the password: %s", standingOf(g))
	}
	edit(s, secret, func(m *corev1.Secret) { m.Data["password"] = []byte("right") })
	s.awaitSource("fetched", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
}

// A server that hangs is given up at the timeout.
func TestGitTimeout(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.git.Hang(true)
	s.source(func(g *sourcev1.GitRepository) { g.Spec.Timeout = &metav1.Duration{Duration: time.Second} })
	s.awaitSourceFailure(sourcev1.GitOperationFailedReason, "1s")
	s.git.Hang(false)
	s.ask(s.fleet())
	s.awaitSource("fetched", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
}

// A proxy is named by a Secret, and all requests go through it.
func TestGitProxy(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var passed atomic.Int64
	forward := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) { passed.Add(1) }}
	proxy := httptest.NewServer(forward)
	t.Cleanup(proxy.Close)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "proxy", Namespace: s.namespace}, StringData: map[string]string{"address": proxy.URL}})
	s.source(func(g *sourcev1.GitRepository) { g.Spec.ProxySecretRef = &meta.LocalObjectReference{Name: "proxy"} })
	s.awaitSource("fetched", func(g *sourcev1.GitRepository) bool { return says(g, "True", meta.SucceededReason) })
	if n := int(passed.Load()); n == 0 || n != len(s.git.Requests()) {
		t.Errorf("%d requests went through the proxy, and the server got %d", n, len(s.git.Requests()))
	}
}

// A repository that many sources use is fetched once for all of them.
func TestGitSharedRepository(t *testing.T) {
	t.Parallel()
	const sources = 12
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	name := func(i int) string { return fmt.Sprintf("source%d", i) }
	for i := range sources {
		s.source(func(g *sourcev1.GitRepository) { g.Name = name(i) })
	}
	for i := range sources {
		s.awaitRepository(name(i), "fetched", atRevision(first))
	}
	if n := s.git.Fetches(); n != 1 {
		t.Errorf("fetched %d times for %d sources, want once", n, sources)
	}
	second := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	for i := range sources {
		g := s.fleet()
		g.Name = name(i)
		s.ask(g)
	}
	for i := range sources {
		s.awaitRepository(name(i), "fetched again", atRevision(second))
	}
	if n := s.git.Fetches(); n != 2 {
		t.Errorf("fetched %d times for two commits, want twice", n)
	}
}
