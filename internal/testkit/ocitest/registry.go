// Package ocitest has a real OCI registry for tests, and fills it.
package ocitest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd" // named in the configuration
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // named in the configuration
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"

	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// Registry is a real OCI registry on loopback that keeps everything in memory. It ends with the test.
type Registry struct {
	// The front is what the tested reach, back what pushes go to: it does as it is told always.
	front.Front[Request]
	back *httptest.Server
	cfg  registryConfig
	// intercept is put before the registry; guarded by Mu.
	intercept func(http.Handler) http.Handler
}

// Request is one request that a Registry has got.
type Request struct {
	Method, Path string
	// Authorization is the header of that name.
	Authorization string
}

type registryConfig struct {
	front.Config
	user, password string
}

// Option changes a Registry.
type Option func(*registryConfig)

// BasicAuth lets in only those with this user and password.
func BasicAuth(user, password string) Option {
	return func(c *registryConfig) { c.user, c.password = user, password }
}

// TLS serves HTTPS with a certificate of a CA made for the test; see CA.
func TLS() Option { return func(c *registryConfig) { c.TLS = true } }

// ClientCert is TLS, and lets in only those with a certificate of that CA; see ClientCert.
func ClientCert() Option {
	return func(c *registryConfig) { c.TLS, c.ClientCert = true, true }
}

// NewRegistry starts a registry that ends with the test.
func NewRegistry(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	r := &Registry{}
	r.T = t
	for _, o := range opts {
		o(&r.cfg)
	}
	// The registry takes no other logger than that of the whole process.
	logrus.SetOutput(io.Discard)
	app := handlers.NewApp(t.Context(), r.configuration())
	t.Cleanup(func() { _ = app.Shutdown() })
	r.back = httptest.NewServer(app)
	t.Cleanup(r.back.Close)
	r.Open(t, r.cfg.Config, r.behave(app))
	return r
}

func (r *Registry) configuration() *configuration.Configuration {
	c := &configuration.Configuration{Storage: configuration.Storage{"inmemory": nil}}
	c.Log.Level, c.Log.AccessLog.Disabled = "panic", true
	c.Catalog.MaxEntries = 1000
	c.HTTP.Secret = "the same for both doors"
	if r.cfg.user == "" {
		return c
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(r.cfg.password), bcrypt.MinCost)
	front.Must(r.T, err)
	file := filepath.Join(r.T.TempDir(), "htpasswd")
	front.Must(r.T, os.WriteFile(file, []byte(r.cfg.user+":"+string(hash)+"\n"), 0o600))
	c.Auth = configuration.Auth{"htpasswd": {"realm": "registry", "path": file}}
	return c
}

// behave records requests, and misbehaves as told.
func (r *Registry) behave(app http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.Record(Request{req.Method, req.URL.Path, req.Header.Get("Authorization")})
		if status := r.Refusal(req); status != 0 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":"UNKNOWN","message":"told to answer %d"}]}`, status)
			return
		}
		r.Mu.Lock()
		intercept := r.intercept
		r.Mu.Unlock()
		if intercept != nil {
			intercept(app).ServeHTTP(w, req)
			return
		}
		app.ServeHTTP(w, req)
	})
}

// Asked counts the requests with a method whose path has a part, such as "/blobs/".
func (r *Registry) Asked(method, part string) int {
	return r.Count(func(req Request) bool { return req.Method == method && strings.Contains(req.Path, part) })
}

// Intercept puts a handler before the registry, which may answer in its place or change what it
// answers; nil takes it away.
func (r *Registry) Intercept(with func(registry http.Handler) http.Handler) {
	r.Mu.Lock()
	defer r.Mu.Unlock()
	r.intercept = with
}

// SendOtherBytes answers requests for manifests or blobs whose path ends with the suffix, such as a digest,
// with other bytes, and says that they are what was asked for.
func (r *Registry) SendOtherBytes(suffix, body string) {
	r.Intercept(func(registry http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !strings.HasSuffix(req.URL.Path, suffix) {
				registry.ServeHTTP(w, req)
				return
			}
			if i := strings.LastIndex(suffix, "sha256:"); i >= 0 {
				w.Header().Set("Docker-Content-Digest", suffix[i:])
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write([]byte(body))
		})
	})
}

// Host is the host with the port.
func (r *Registry) Host() string { return r.HTTP.Listener.Addr().String() }

// URL is the address of a repository, such as "oci://127.0.0.1:1234/team/app".
func (r *Registry) URL(repository string) string { return "oci://" + r.Host() + "/" + repository }

// DockerConfig is the value of .dockerconfigjson that logs in at the registry.
func (r *Registry) DockerConfig(user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, r.Host(), user, password)
}
