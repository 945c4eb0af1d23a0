package testkit

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// GitServer serves bare repositories with the real git executable: over smart
// HTTP on loopback, and over SSH when asked for. It ends with the test.
type GitServer struct {
	front.Front[GitRequest]
	root  string
	ssh   *sshServer
	cfg   gitConfig
	clock time.Time // of the next commit; guarded by mu
}

// GitRequest is one request that a GitServer has got.
type GitRequest struct {
	Method, Path string
	// Fetch is true for a request that asks for objects, false for a listing of references.
	Fetch bool
	// Authorization is the header of that name.
	Authorization string
}

type gitConfig struct {
	user, password, bearer string
	front.Config
	ssh, tipsOnly bool
	onPush        func(string)
	admit         func(user, password, bearer string) bool
}

// GitOption changes a GitServer.
type GitOption func(*gitConfig)

// GitBasicAuth lets in only those with this user and password.
func GitBasicAuth(user, password string) GitOption {
	return func(c *gitConfig) { c.user, c.password = user, password }
}

// GitBearer lets in only those with this bearer token.
func GitBearer(token string) GitOption { return func(c *gitConfig) { c.bearer = token } }

// GitAdmit lets in those whom a function lets in, which gets what basic authentication
// says, or the bearer token.
func GitAdmit(f func(user, password, bearer string) bool) GitOption {
	return func(c *gitConfig) { c.admit = f }
}

// GitTLS serves HTTPS with a certificate of a CA made for the test; see CA.
func GitTLS() GitOption { return func(c *gitConfig) { c.TLS = true } }

// GitClientCert is GitTLS, and lets in only those with a certificate of that CA; see ClientCert.
func GitClientCert() GitOption { return func(c *gitConfig) { c.TLS, c.ClientCert = true, true } }

// GitSSH serves SSH too.
func GitSSH() GitOption { return func(c *gitConfig) { c.ssh = true } }

// GitTipsOnly makes the server give out only commits that references point
// at. With protocol version 2, git does not care.
func GitTipsOnly() GitOption { return func(c *gitConfig) { c.tipsOnly = true } }

// GitOnPush is called after every push over HTTP with the repository's path, such as "fleet.git".
func GitOnPush(f func(repo string)) GitOption { return func(c *gitConfig) { c.onPush = f } }

// NewGitServer starts a server that ends with the test.
func NewGitServer(t testing.TB, opts ...GitOption) *GitServer {
	t.Helper()
	s := &GitServer{root: t.TempDir(), clock: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, o := range opts {
		o(&s.cfg)
	}
	s.Open(t, s.cfg.Config, s.handler(gitserve.Handler(s.root, gitserve.Options{OnPush: s.cfg.onPush, TipsOnly: s.cfg.tipsOnly})))
	if s.cfg.ssh {
		s.ssh = startSSH(t, s)
	}
	return s
}

// handler records requests, misbehaves as told and checks credentials.
func (s *GitServer) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Record(gitRequest(r))
		if status := s.Refusal(r); status != 0 {
			http.Error(w, http.StatusText(status), status)
			return
		}
		if !s.cfg.admits(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "credentials wanted", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (c *gitConfig) admits(r *http.Request) bool {
	if c.admit != nil {
		user, password, _ := r.BasicAuth()
		bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		return c.admit(user, password, bearer)
	}
	if c.bearer != "" {
		return r.Header.Get("Authorization") == "Bearer "+c.bearer
	}
	if c.user == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	return user == c.user && password == c.password
}

func gitRequest(r *http.Request) GitRequest {
	fetch := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-upload-pack")
	if fetch && strings.Contains(r.Header.Get("Git-Protocol"), "version=2") {
		fetch = isFetchCommand(r)
	}
	return GitRequest{Method: r.Method, Path: r.URL.Path, Fetch: fetch, Authorization: r.Header.Get("Authorization")}
}

// Fetches counts the requests for objects, over HTTP.
func (s *GitServer) Fetches() int {
	return s.Count(func(r GitRequest) bool { return r.Fetch })
}

// Root is the folder of the repositories.
func (s *GitServer) Root() string { return s.root }

func (s *GitServer) tick() time.Time {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.clock = s.clock.Add(time.Second)
	return s.clock
}

// context ends shortly before the test's deadline, so that git never outlives the test.
func (s *GitServer) context() context.Context { return s.T.Context() }

// isFetchCommand tells the fetch command of protocol version 2 from the others and leaves the body whole.
func isFetchCommand(r *http.Request) bool {
	head := make([]byte, len("0011command=fetch"))
	n, _ := io.ReadFull(r.Body, head)
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head[:n]), r.Body), r.Body}
	// A compressed body cannot be told from here; only a fetch is long enough to be compressed.
	return bytes.Contains(head[:n], []byte("command=fetch")) || r.Header.Get("Content-Encoding") == "gzip"
}
