package controller

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// The engine outlives its API server: it keeps running, delivers what was committed
// meanwhile when the server is back, and heals what was changed.
func TestAPIServerGoneForAWhile(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	engine := engineFor(t, instance.Config)
	s := stageOn(t, instance.Config)
	s.engine = engine
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	s.source(func(g *sourcev1.GitRepository) { g.Spec.Interval = metav1.Duration{Duration: time.Second} })
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()

	instance.Stop()
	second := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	fetches := s.git.Fetches()
	s.poll("fetched while it cannot be delivered", func() bool { return s.git.Fetches() > fetches })
	instance.Start()

	s.awaitLive("app", second)
	if after := s.deliveredConfigs(); after["b"] != before["b"] || after["a"].uid != before["a"].uid {
		t.Errorf("before the outage there was %v, after it %v; only a was to change", before, after)
	}
	was := s.config("b")
	if err := s.client.Delete(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	await(s, &corev1.ConfigMapList{}, "b", "made anew", func(m *corev1.ConfigMap) bool { return m.UID != was.UID })
}

// When nothing happens, nothing is asked, written or worked on; and a restart over
// what is live writes nothing either.
func TestIdleCostsNothing(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	s := stageOn(t, instance.Config)
	var requests atomic.Int64
	counted := rest.CopyConfig(instance.Config)
	counted.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			requests.Add(1)
			return next.RoundTrip(r)
		})
	})
	first := engineFor(t, counted)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"base/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "other/c.yaml": configMap("c", "1"), "broken/d.yaml": "a: [",
	})
	s.source()
	s.unit("base", func(k *kustomizev1.Kustomization) { k.Spec.Wait = true })
	s.unit("app", dependsOn("base"))
	s.unit("other")
	// Those that fail or wait are as quiet as those that are well.
	s.unit("broken")
	s.unit("waiting", dependsOn("broken"))
	for _, unit := range []string{"base", "app", "other"} {
		s.awaitLive(unit, revision)
	}
	s.awaitFailure("broken", meta.BuildFailedReason)
	s.awaitFailure("waiting", meta.DependencyNotReadyReason)
	units := []string{"base", "app", "other", "broken", "waiting"}
	s.quiet("in the steady state", &requests)

	before := s.versions(units)
	objects := s.deliveredConfigs()
	if err := first.stop(); err != nil {
		t.Fatalf("the engine ended with: %v", err)
	}
	writes := s.writes(units)
	requests.Store(0)
	second := engineFor(t, counted)
	s.settled(second, len(objects))
	s.quiet("after a restart", &requests)
	if after := s.versions(units); after != before {
		t.Errorf("a restart over what is live wrote statuses: versions %s, then %s:\n%s", before, after, writes())
	}
	if n := second.count(t, "bowline_requests_total", ""); n != 0 {
		t.Errorf("a restart over what is live sent %v requests about objects", n)
	}
	s.untouched(objects)
}

// settled waits until a new engine knows all objects again.
func (s *stage) settled(e *liveEngine, objects int) {
	s.Helper()
	s.poll("settled", func() bool {
		return e.count(s.T, "bowline_ledger_objects", "") >= float64(objects) && e.count(s.T, "bowline_builds_total", "success") >= 3
	})
}

// quiet watches the requests of an engine for a while: after a moment for events
// under way there must be none.
func (s *stage) quiet(when string, requests *atomic.Int64) {
	s.Helper()
	const window = 3 * time.Second
	deadline := time.Now().Add(patience)
	for {
		before := requests.Load()
		pass(window)
		made := requests.Load() - before
		if made == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.Errorf("%s the engine made %d requests in %s", when, made, window)
			return
		}
	}
}

// versions returns the resource versions of the source and of the units.
func (s *stage) versions(units []string) string {
	s.Helper()
	g := s.fleet()
	s.read(g)
	all := g.ResourceVersion
	for _, unit := range units {
		k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: unit, Namespace: s.namespace}}
		s.read(k)
		all += " " + k.ResourceVersion
	}
	return all
}

// writes notes from now on what the units' conditions become, and tells when asked.
func (s *stage) writes(units []string) func() string {
	s.Helper()
	list := &kustomizev1.KustomizationList{}
	w, err := s.client.Watch(s.Context(), list, client.InNamespace(s.namespace))
	if err != nil {
		s.Fatal(err)
	}
	notes := &logbook{}
	go func() {
		initial := len(units)
		for e := range w.ResultChan() {
			if k, ok := e.Object.(*kustomizev1.Kustomization); ok && e.Type != watch.Bookmark {
				if initial--; initial < 0 {
					_, _ = notes.Write([]byte(k.Name + ": " + standingOf(k) + "\n"))
				}
			}
		}
	}()
	s.Cleanup(w.Stop)
	return func() string { return notes.about("") }
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A restart without the source, because it is suspended or because its server is
// away, goes on from the revision on disk: units stay ready and are healed.
func TestRestartWithoutSource(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	for _, row := range []struct {
		name, reason string
		away         func(*stage)
	}{
		{"suspended", "a suspended source keeps its revision", func(s *stage) {
			edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.Suspend = true })
		}},
		{"unreachable", "the server may be away for long", func(s *stage) { s.git.Refuse(503) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			first, err := startEngine(instance.Config, dir)
			if err != nil {
				t.Fatal(err)
			}
			s := stageOn(t, instance.Config)
			module := s.git.Repo("module").Commit(map[string]string{"c.yaml": configMap("c", "1")})
			other := s.git.Repo("other")
			other.Commit(map[string]string{"deploy/b.yaml": configMap("b", "1")})
			revision := "main@sha1:" + s.repo.CommitFiles(map[string]gitserve.File{
				"app/a.yaml": {Data: []byte(configMap("a", "1"))}, "app/module": {Data: []byte(module), Mode: "160000"},
				".gitmodules": {Data: []byte("[submodule \"m\"]\n\tpath = app/module\n\turl = ../module.git\n")},
			})
			s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "other", other.URL() })
			s.source(includes("deploy", "app/included"), func(g *sourcev1.GitRepository) { g.Spec.RecurseSubmodules = true })
			s.unit("app")
			s.awaitLive("app", revision)
			if got := s.names(""); got != "a b c" {
				t.Fatalf("delivered %q, want a b c", got)
			}
			was := s.config("a")
			row.away(s)
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			told := s.writes([]string{"app"})
			if err := s.client.Delete(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			engineFor(t, instance.Config, func(o *Options) { o.DataDir = dir })
			await(s, &corev1.ConfigMapList{}, "a", "made anew: "+row.reason, func(m *corev1.ConfigMap) bool { return m.UID != was.UID })
			s.awaitUnit("app", "ready", func(k *kustomizev1.Kustomization) bool {
				return says(k, metav1.ConditionTrue, meta.ReconciliationSucceededReason)
			})
			if words := told(); strings.Contains(words, "Ready=False") {
				t.Errorf("it was not ready for a while:\n%s", words)
			}
			if got := s.names(""); got != "a b c" {
				t.Errorf("there is %q, want a b c: what is included and what is in submodules is on disk, too", got)
			}
		})
	}
}
