// Package charttest has a Helm repository for tests.
package charttest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	repo "helm.sh/helm/v4/pkg/repo/v1"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// Server is a Helm repository over HTTP: a folder of chart archives with an index that the
// Helm SDK makes. It listens on loopback and ends with the test.
type Server struct {
	front.Front[Request]
	root string
	cfg  chartServerConfig
	// refused are the statuses that requests for a path are answered with; guarded by Mu.
	refused map[string]int
}

// Request is one request that a Server has got.
type Request struct {
	Method, Host, Path string
	// Authorization and UserAgent are the headers of those names.
	Authorization, UserAgent string
	// Conditional says that the request asked for a newer state than one it has.
	Conditional bool
	// Status is what was answered: 0 where the connection was cut or hangs.
	Status int
}

type chartServerConfig struct {
	front.Config
	user, password string
	plain          bool
}

// Option changes a Server.
type Option func(*chartServerConfig)

// BasicAuth lets in only those with this user and password.
func BasicAuth(user, password string) Option {
	return func(c *chartServerConfig) { c.user, c.password = user, password }
}

// TLS serves HTTPS with a certificate of a CA made for the test; see CA.
func TLS() Option { return func(c *chartServerConfig) { c.TLS = true } }

// ClientCert is TLS, and lets in only those with a certificate of that CA; see ClientCert.
func ClientCert() Option {
	return func(c *chartServerConfig) { c.TLS, c.ClientCert = true, true }
}

// Plain leaves out entity tags and dates, so that no request can be conditional.
func Plain() Option { return func(c *chartServerConfig) { c.plain = true } }

// NewServer starts a server with these charts and an index.
func NewServer(t testing.TB, charts []testkit.Chart, opts ...Option) *Server {
	t.Helper()
	s := &Server{root: t.TempDir(), refused: map[string]int{}}
	for _, o := range opts {
		o(&s.cfg)
	}
	s.Open(t, s.cfg.Config, http.HandlerFunc(s.serve))
	s.Add(charts...)
	return s
}

// Add writes the archives of charts and a new index, whose URLs are relative.
func (s *Server) Add(charts ...testkit.Chart) {
	s.T.Helper()
	for _, c := range charts {
		s.Write(c.File(), c.Archive(s.T))
	}
	s.Index("")
}

// Index has the Helm SDK make the index of what is in the folder. base is what the URLs of
// charts begin with, "" for relative ones.
func (s *Server) Index(base string) {
	s.T.Helper()
	index, err := repo.IndexDirectory(s.root, base)
	front.Must(s.T, err)
	index.SortEntries()
	file := filepath.Join(s.T.TempDir(), "index.yaml")
	front.Must(s.T, index.WriteFile(file, 0o644))
	front.Must(s.T, os.Rename(file, filepath.Join(s.root, "index.yaml")))
}

// Write puts a file into the folder, whatever it is: a broken index, an archive that is none.
func (s *Server) Write(name string, content []byte) {
	s.T.Helper()
	file := filepath.Join(s.T.TempDir(), "new")
	front.Must(s.T, os.WriteFile(file, content, 0o644))
	to := filepath.Join(s.root, filepath.FromSlash(name))
	front.Must(s.T, os.MkdirAll(filepath.Dir(to), 0o755))
	front.Must(s.T, os.Rename(file, to))
}

// serve records the request, misbehaves as told, checks credentials and sends a file.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	entry := s.Record(Request{
		Method: r.Method, Host: r.Host, Path: r.URL.Path, Authorization: r.Header.Get("Authorization"), UserAgent: r.UserAgent(),
		Conditional: r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "",
	})
	seen := &statusWriter{ResponseWriter: w, note: func(status int) {
		s.Mu.Lock()
		defer s.Mu.Unlock()
		s.Log[entry].Status = status
	}}
	if status := s.refusal(r); status != 0 {
		http.Error(seen, http.StatusText(status), status)
		return
	}
	if user, password, _ := r.BasicAuth(); s.cfg.user != "" && (user != s.cfg.user || password != s.cfg.password) {
		seen.Header().Set("WWW-Authenticate", `Basic realm="charts"`)
		http.Error(seen, "credentials wanted", http.StatusUnauthorized)
		return
	}
	s.send(seen, r)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request) {
	content, err := os.ReadFile(filepath.Join(s.root, filepath.FromSlash(path.Clean("/"+r.URL.Path))))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	if s.cfg.plain {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(content)
		return
	}
	sum := sha256.Sum256(content)
	w.Header().Set("ETag", strconv.Quote(hex.EncodeToString(sum[:])))
	http.FileServer(http.Dir(s.root)).ServeHTTP(w, r)
}

// refusal is that of the front, or the one for the path.
func (s *Server) refusal(r *http.Request) int {
	all := s.Front.Refusal(r)
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return cmp.Or(s.refused[r.URL.Path], all)
}

// statusWriter notes the status that is answered.
type statusWriter struct {
	http.ResponseWriter
	note func(int)
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.note(status)
	w.ResponseWriter.WriteHeader(status)
}

// Asked counts the requests for paths that end so, such as "/index.yaml" or ".tgz".
func (s *Server) Asked(suffix string) int {
	return s.Count(func(r Request) bool { return strings.HasSuffix(r.Path, suffix) })
}

// Refuse answers requests for a path, such as "/index.yaml", with a status; "" is every path, and
// the status 0 ends it.
func (s *Server) Refuse(of string, status int) {
	if of == "" {
		s.Front.Refuse(status)
		return
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.refused[of] = status
}

// Root is the folder that is served.
func (s *Server) Root() string { return s.root }
