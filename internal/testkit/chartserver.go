package testkit

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
)

// ChartServer is a Helm repository over HTTP: a folder of chart archives with an index that the
// Helm SDK makes. It listens on loopback and ends with the test.
type ChartServer struct {
	front[ChartRequest]
	root string
	cfg  chartServerConfig
	// refused are the statuses that requests for a path are answered with; guarded by mu.
	refused map[string]int
}

// ChartRequest is one request that a ChartServer has got.
type ChartRequest struct {
	Method, Host, Path string
	// Authorization and UserAgent are the headers of those names.
	Authorization, UserAgent string
	// Conditional says that the request asked for a newer state than one it has.
	Conditional bool
	// Status is what was answered: 0 where the connection was cut or hangs.
	Status int
}

type chartServerConfig struct {
	frontConfig
	user, password string
	plain          bool
}

// ChartServerOption changes a ChartServer.
type ChartServerOption func(*chartServerConfig)

// ChartBasicAuth lets in only those with this user and password.
func ChartBasicAuth(user, password string) ChartServerOption {
	return func(c *chartServerConfig) { c.user, c.password = user, password }
}

// ChartTLS serves HTTPS with a certificate of a CA made for the test; see CA.
func ChartTLS() ChartServerOption { return func(c *chartServerConfig) { c.tls = true } }

// ChartClientCert is ChartTLS, and lets in only those with a certificate of that CA; see ClientCert.
func ChartClientCert() ChartServerOption {
	return func(c *chartServerConfig) { c.tls, c.clientCert = true, true }
}

// ChartPlain leaves out entity tags and dates, so that no request can be conditional.
func ChartPlain() ChartServerOption { return func(c *chartServerConfig) { c.plain = true } }

// NewChartServer starts a server with these charts and an index.
func NewChartServer(t testing.TB, charts []Chart, opts ...ChartServerOption) *ChartServer {
	t.Helper()
	s := &ChartServer{root: t.TempDir(), refused: map[string]int{}}
	for _, o := range opts {
		o(&s.cfg)
	}
	s.open(t, s.cfg.frontConfig, http.HandlerFunc(s.serve))
	s.Add(charts...)
	return s
}

// Add writes the archives of charts and a new index, whose URLs are relative.
func (s *ChartServer) Add(charts ...Chart) {
	s.t.Helper()
	for _, c := range charts {
		s.Write(c.File(), c.Archive(s.t))
	}
	s.Index("")
}

// Index has the Helm SDK make the index of what is in the folder. base is what the URLs of
// charts begin with, "" for relative ones.
func (s *ChartServer) Index(base string) {
	s.t.Helper()
	index, err := repo.IndexDirectory(s.root, base)
	must(s.t, err)
	index.SortEntries()
	file := filepath.Join(s.t.TempDir(), "index.yaml")
	must(s.t, index.WriteFile(file, 0o644))
	must(s.t, os.Rename(file, filepath.Join(s.root, "index.yaml")))
}

// Write puts a file into the folder, whatever it is: a broken index, an archive that is none.
func (s *ChartServer) Write(name string, content []byte) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "new")
	must(s.t, os.WriteFile(file, content, 0o644))
	to := filepath.Join(s.root, filepath.FromSlash(name))
	must(s.t, os.MkdirAll(filepath.Dir(to), 0o755))
	must(s.t, os.Rename(file, to))
}

// serve records the request, misbehaves as told, checks credentials and sends a file.
func (s *ChartServer) serve(w http.ResponseWriter, r *http.Request) {
	entry := s.record(ChartRequest{
		Method: r.Method, Host: r.Host, Path: r.URL.Path, Authorization: r.Header.Get("Authorization"), UserAgent: r.UserAgent(),
		Conditional: r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "",
	})
	seen := &statusWriter{ResponseWriter: w, note: func(status int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log[entry].Status = status
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

func (s *ChartServer) send(w http.ResponseWriter, r *http.Request) {
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
func (s *ChartServer) refusal(r *http.Request) int {
	all := s.front.refusal(r)
	s.mu.Lock()
	defer s.mu.Unlock()
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
func (s *ChartServer) Asked(suffix string) int {
	return s.asked(func(r ChartRequest) bool { return strings.HasSuffix(r.Path, suffix) })
}

// Refuse answers requests for a path, such as "/index.yaml", with a status; "" is every path, and
// the status 0 ends it.
func (s *ChartServer) Refuse(of string, status int) {
	if of == "" {
		s.front.Refuse(status)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[of] = status
}

// Root is the folder that is served.
func (s *ChartServer) Root() string { return s.root }
