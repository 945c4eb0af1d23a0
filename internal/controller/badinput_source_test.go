package controller

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// A source that fails leaves what runs as it is, says why, and recovers without
// anybody asking.
func TestBadSource(t *testing.T) {
	t.Parallel()
	for _, row := range []badSource{
		{
			name: "unreachable", why: "nobody listens at the address",
			breaks: func(_ *stage, g *gate) { g.close() }, fixes: func(_ *stage, g *gate) { g.open() },
			reason: sourcev1.GitOperationFailedReason, words: []string{"connection refused", "check that the server is up"},
		},
		{
			name: "refused", why: "the server is broken",
			breaks: func(s *stage, _ *gate) { s.git.Refuse(500) }, fixes: func(s *stage, _ *gate) { s.git.Refuse(0) },
			reason: sourcev1.GitOperationFailedReason, words: []string{"500", "see the server's log"},
		},
		{
			name: "timing out", why: "the server takes the request and never answers",
			breaks: func(s *stage, _ *gate) { s.git.Hang(true) }, fixes: func(s *stage, _ *gate) { s.git.Hang(false) },
			reason: sourcev1.GitOperationFailedReason, words: []string{"has not answered in full within 1s", "spec.timeout"},
		},
		{
			name: "wrong credentials", why: "the password was changed on the server alone",
			options: []testkit.GitOption{testkit.GitBasicAuth("ann", "right")},
			secret:  func(*stage) map[string][]byte { return login("right") },
			breaks:  func(s *stage, _ *gate) { s.setSecret(login("wrong")) },
			fixes:   func(s *stage, _ *gate) { s.setSecret(login("right")) },
			reason:  sourcev1.AuthenticationFailedReason, words: []string{"401", "check the credentials in the Secret that spec.secretRef names"},
		},
		{
			name: "missing Secret", why: "somebody deleted it",
			options: []testkit.GitOption{testkit.GitBasicAuth("ann", "right")},
			secret:  func(*stage) map[string][]byte { return login("right") },
			breaks:  func(s *stage, _ *gate) { s.dropSecret() },
			fixes:   func(s *stage, _ *gate) { s.create(s.gitSecret(login("right"))) },
			reason:  sourcev1.GitOperationFailedReason, words: []string{"/git", "create it, or correct spec.secretRef"},
		},
		{
			name: "unknown host key", why: "known_hosts does not hold the server's key",
			options: []testkit.GitOption{testkit.GitSSH()}, ssh: true,
			secret: func(s *stage) map[string][]byte { return s.identity(s.git.SSHKnownHosts()) },
			breaks: func(s *stage, _ *gate) { s.setSecret(s.identity([]byte(otherHost))) },
			fixes:  func(s *stage, _ *gate) { s.setSecret(s.identity(s.git.SSHKnownHosts())) },
			reason: sourcev1.AuthenticationFailedReason, words: []string{"host key", "add it to known_hosts in the Secret"},
		},
		{
			name: "missing branch", why: "somebody deleted it",
			breaks: func(s *stage, _ *gate) {
				s.repo.Branch("kept", "main")
				s.repo.DeleteBranch("main")
			},
			fixes:  func(s *stage, _ *gate) { s.repo.Branch("main", "kept") },
			reason: sourcev1.GitOperationFailedReason, words: []string{"main"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.play(t)
		})
	}
}

type badSource struct {
	name, why     string
	options       []testkit.GitOption
	ssh           bool
	secret        func(*stage) map[string][]byte
	breaks, fixes func(*stage, *gate)
	// reason and words are what the GitRepository has to say meanwhile.
	reason string
	words  []string
}

func (row badSource) play(t *testing.T) {
	s := newStage(t, row.options...)
	g := newGate(t, strings.TrimPrefix(s.git.URL(), "http://"))
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source(func(r *sourcev1.GitRepository) {
		r.Spec.URL = strings.Replace(s.repo.URL(), strings.TrimPrefix(s.git.URL(), "http://"), g.addr, 1)
		if row.ssh {
			r.Spec.URL = s.repo.SSHURL()
		}
		r.Spec.Timeout = &metav1.Duration{Duration: time.Second}
		if row.secret != nil {
			s.create(s.gitSecret(row.secret(s)))
			r.Spec.SecretRef = &meta.LocalObjectReference{Name: "git"}
		}
	})
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()

	second := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	row.breaks(s, g)
	request := s.ask(s.fleet())
	// A change of a Secret is noticed even before somebody asks.
	failed := s.awaitSource("failed as asked", func(g *sourcev1.GitRepository) bool {
		return g.Status.LastHandledReconcileAt == request && says(g, metav1.ConditionFalse, row.reason, row.words...)
	})
	if failed.Status.Artifact == nil || failed.Status.Artifact.Revision != first {
		t.Errorf("the artifact is %v after a failed fetch, want that of %s: %s", failed.Status.Artifact, first, row.why)
	}
	if c := report.Condition(failed, sourcev1.FetchFailedCondition); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("FetchFailed is %v: %s", c, row.why)
	}
	s.awaitLive("app", first)
	s.untouched(before)

	row.fixes(s, g)
	s.awaitLive("app", second)
	healed := s.awaitSource("ready at "+second, func(g *sourcev1.GitRepository) bool {
		return report.IsReady(g, g.Status.ObservedGeneration) && g.Status.Artifact.Revision == second
	})
	if c := report.Condition(healed, sourcev1.FetchFailedCondition); c != nil {
		t.Errorf("it still says FetchFailed: %s", c.Message)
	}
}

// While its source is away, a unit is still healed from the revision at hand.
func TestHealsWithoutItsSource(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	s.git.Refuse(503)
	s.ask(s.fleet())
	s.awaitSourceFailure(sourcev1.GitOperationFailedReason, "503")

	was := s.config("a")
	if err := s.client.Delete(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	await(s, &corev1.ConfigMapList{}, "a", "made anew", func(m *corev1.ConfigMap) bool { return m.UID != was.UID })
}

// A source that never had a revision is told on the unit, and both recover.
func TestSourceThatNeverWorked(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.unit("app")
	s.awaitFailure("app", meta.ArtifactFailedReason, "not found", "spec.sourceRef")
	s.git.Refuse(500)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	s.awaitFailure("app", meta.ArtifactFailedReason, "is not ready", "500")
	s.git.Refuse(0)
	s.awaitLive("app", first)
}

func login(password string) map[string][]byte {
	return map[string][]byte{"username": []byte("ann"), "password": []byte(password)}
}

// otherHost is a host that is none of ours, with a key.
const otherHost = "[127.0.0.1]:1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"

func (s *stage) identity(knownHosts []byte) map[string][]byte {
	return map[string][]byte{"identity": s.git.SSHIdentity(""), "known_hosts": knownHosts}
}

func (s *stage) gitSecret(data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git", Namespace: s.namespace}, Data: data}
}

func (s *stage) setSecret(data map[string][]byte) {
	s.Helper()
	if err := s.client.Update(s.Context(), s.gitSecret(data)); err != nil {
		s.Fatalf("change the Secret: %v", err)
	}
}

func (s *stage) dropSecret() {
	s.Helper()
	if err := s.client.Delete(s.Context(), s.gitSecret(nil)); err != nil {
		s.Fatalf("delete the Secret: %v", err)
	}
}

// gate passes connections on to a server, and can be closed and opened again at
// the same address.
type gate struct {
	t            *testing.T
	addr, target string

	mu       sync.Mutex
	listener net.Listener      // guarded by mu
	conns    map[net.Conn]bool // guarded by mu
}

func newGate(t *testing.T, target string) *gate {
	g := &gate{t: t, addr: "127.0.0.1:0", target: target, conns: map[net.Conn]bool{}}
	g.open()
	t.Cleanup(g.close)
	return g
}

func (g *gate) open() {
	g.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", g.addr)
	if err != nil {
		g.t.Fatalf("open the gate: %v", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listener, g.addr = l, l.Addr().String()
	go g.serve(l)
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close()
	for c := range g.conns {
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", g.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		g.mu.Lock()
		g.conns[c], g.conns[server] = true, true
		g.mu.Unlock()
		for _, pair := range [][2]net.Conn{{c, server}, {server, c}} {
			go func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
			}()
		}
	}
}
