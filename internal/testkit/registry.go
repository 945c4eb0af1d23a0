package testkit

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
)

// Registry is a real OCI registry on loopback that keeps everything in memory. It ends with the test.
type Registry struct {
	// The front is what the tested reach, back what pushes go to: it does as it is told always.
	front[RegistryRequest]
	back *httptest.Server
	cfg  registryConfig
	// intercept is put before the registry; guarded by mu.
	intercept func(http.Handler) http.Handler
}

// RegistryRequest is one request that a Registry has got.
type RegistryRequest struct {
	Method, Path string
	// Authorization is the header of that name.
	Authorization string
}

type registryConfig struct {
	frontConfig
	user, password string
}

// RegistryOption changes a Registry.
type RegistryOption func(*registryConfig)

// RegistryBasicAuth lets in only those with this user and password.
func RegistryBasicAuth(user, password string) RegistryOption {
	return func(c *registryConfig) { c.user, c.password = user, password }
}

// RegistryTLS serves HTTPS with a certificate of a CA made for the test; see CA.
func RegistryTLS() RegistryOption { return func(c *registryConfig) { c.tls = true } }

// RegistryClientCert is RegistryTLS, and lets in only those with a certificate of that CA; see ClientCert.
func RegistryClientCert() RegistryOption {
	return func(c *registryConfig) { c.tls, c.clientCert = true, true }
}

// NewRegistry starts a registry that ends with the test.
func NewRegistry(t testing.TB, opts ...RegistryOption) *Registry {
	t.Helper()
	r := &Registry{}
	r.t = t
	for _, o := range opts {
		o(&r.cfg)
	}
	// The registry takes no other logger than that of the whole process.
	logrus.SetOutput(io.Discard)
	app := handlers.NewApp(t.Context(), r.configuration())
	t.Cleanup(func() { _ = app.Shutdown() })
	r.back = httptest.NewServer(app)
	t.Cleanup(r.back.Close)
	r.open(t, r.cfg.frontConfig, r.behave(app))
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
	must(r.t, err)
	file := filepath.Join(r.t.TempDir(), "htpasswd")
	must(r.t, os.WriteFile(file, []byte(r.cfg.user+":"+string(hash)+"\n"), 0o600))
	c.Auth = configuration.Auth{"htpasswd": {"realm": "registry", "path": file}}
	return c
}

// behave records requests, and misbehaves as told.
func (r *Registry) behave(app http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.record(RegistryRequest{req.Method, req.URL.Path, req.Header.Get("Authorization")})
		if status := r.refusal(req); status != 0 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":"UNKNOWN","message":"told to answer %d"}]}`, status)
			return
		}
		r.mu.Lock()
		intercept := r.intercept
		r.mu.Unlock()
		if intercept != nil {
			intercept(app).ServeHTTP(w, req)
			return
		}
		app.ServeHTTP(w, req)
	})
}

// Asked counts the requests with a method whose path has a part, such as "/blobs/".
func (r *Registry) Asked(method, part string) int {
	return r.asked(func(req RegistryRequest) bool { return req.Method == method && strings.Contains(req.Path, part) })
}

// Intercept puts a handler before the registry, which may answer in its place or change what it
// answers; nil takes it away.
func (r *Registry) Intercept(with func(registry http.Handler) http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
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
func (r *Registry) Host() string { return r.http.Listener.Addr().String() }

// URL is the address of a repository, such as "oci://127.0.0.1:1234/team/app".
func (r *Registry) URL(repository string) string { return "oci://" + r.Host() + "/" + repository }

// DockerConfig is the value of .dockerconfigjson that logs in at the registry.
func (r *Registry) DockerConfig(user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, r.Host(), user, password)
}
