// Package buckettest has servers of buckets for tests: S3, Google Cloud Storage and Azure.
package buckettest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// Server is a bucket for one test on a server that all tests of the package share. The
// server is a program of its own; what a test does to it, it does to a front that only this test
// has. It takes a TestMain that calls testkit.Main.
type Server struct {
	front.Front[Request]
	// Bucket is the name of the test's bucket.
	Bucket string
	direct *bucketProcess

	reading sync.Mutex       // held while onReads runs
	onReads func(key string) // guarded by Mu
}

// Request is one request that a Server has got.
type Request struct {
	Method, Path, Query string
	Header              http.Header
}

// Option changes a Server.
type Option func(*front.Config)

// TLS serves HTTPS with a certificate of a CA made for the test; see CA.
func TLS() Option { return func(c *front.Config) { c.TLS = true } }

// ClientCert is TLS, and lets in only those with a certificate of that CA; see ClientCert.
func ClientCert() Option {
	return func(c *front.Config) { c.TLS, c.ClientCert = true, true }
}

// newFront puts a server of the test's own before a program.
func newFront(t testing.TB, direct *bucketProcess, opts []Option) *Server {
	t.Helper()
	var cfg front.Config
	for _, o := range opts {
		o(&cfg)
	}
	s := &Server{direct: direct, Bucket: direct.next()}
	proxy := &httputil.ReverseProxy{
		Transport: direct.way, ErrorLog: front.QuietLog(),
		// The signature of a request is of the host that the client knows.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(direct.url)
			r.Out.Host = r.In.Host
		},
	}
	s.Open(t, cfg, s.handler(proxy))
	return s
}

// handler records requests and misbehaves as told.
func (s *Server) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header.Clone()}
		s.Record(request)
		if status := s.Refusal(r); status != 0 {
			http.Error(w, http.StatusText(status), status)
			return
		}
		s.Mu.Lock()
		reads := s.onReads
		s.Mu.Unlock()
		if key, ok := s.keyOf(request); ok && reads != nil {
			s.reading.Lock()
			reads(key)
			s.reading.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// keyOf is the key of the object that a request reads.
func (s *Server) keyOf(r Request) (string, bool) {
	if r.Method != http.MethodGet {
		return "", false
	}
	_, key, _ := strings.Cut(r.Path, "/"+s.Bucket+"/")
	if s.direct.google {
		query, _ := url.ParseQuery(r.Query)
		return strings.TrimPrefix(key, "o/"), key != "" && query.Get("alt") == "media"
	}
	return key, key != ""
}

// Endpoint is the host and port of the server.
func (s *Server) Endpoint() string {
	if s.HTTP == nil {
		return "" // there is none: the test names the server
	}
	return s.HTTP.Listener.Addr().String()
}

// Reads returns the keys of the objects that were downloaded so far, in that order.
func (s *Server) Reads() []string {
	var keys []string
	for _, r := range s.Requests() {
		if key, ok := s.keyOf(r); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// OnRead is called with the key of each object before it is read, one after the other; nil ends it.
func (s *Server) OnRead(f func(key string)) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.onReads = f
}

// bucketProcess is a server of buckets that runs until the tests of the package end.
type bucketProcess struct {
	dir     string
	url     *url.URL
	way     *http.Transport
	process *exec.Cmd
	google  bool
	err     error // of the one attempt to start

	mu    sync.Mutex // guards count
	count int
}

// next is a name for a bucket that no other test of the package has.
func (p *bucketProcess) next() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	return fmt.Sprintf("bucket-%d", p.count)
}

// running are the servers of the package that is tested, by the name of the program. The functions that tests
// call get no more than a testing.TB, so it has to live here.
var running struct {
	sync.Mutex
	named map[string]*bucketProcess
}

// sharedProcess starts a program when the first test asks for it. It answers at the URL as soon as it runs.
func sharedProcess(t testing.TB, name string, start func(p *bucketProcess) (command *exec.Cmd, health string, err error)) *bucketProcess {
	t.Helper()
	running.Lock()
	defer running.Unlock()
	p := running.named[name]
	if p == nil {
		p = &bucketProcess{}
		testkit.AfterTests(t, p.end)
		if running.named == nil {
			running.named = map[string]*bucketProcess{}
		}
		running.named[name] = p
		p.err = p.start(start)
	}
	if p.err != nil {
		t.Fatalf("buckettest: start %s: %v", name, p.err)
	}
	return p
}

func (p *bucketProcess) start(start func(*bucketProcess) (*exec.Cmd, string, error)) error {
	var err error
	if p.dir, err = os.MkdirTemp("", "bowline-bucket-"); err != nil {
		return err
	}
	command, health, err := start(p)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	// It ends with the tests, however they end.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return err
	}
	p.process = command
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, p.url.String()+health, nil)
		if err != nil {
			return err
		}
		if answer, err := p.way.RoundTrip(request); err == nil {
			_ = answer.Body.Close()
			return nil
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it ended: %w\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("it did not answer in time")
}

func (p *bucketProcess) end() {
	if p.process != nil {
		_ = p.process.Process.Kill()
	}
	_ = os.RemoveAll(p.dir)
}
