package testkit

import (
	"context"
	"fmt"
	"net"
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
)

// BucketServer is a bucket for one test on a server that all tests of the package share. The
// server is a program of its own; what a test does to it, it does to a front that only this test
// has. It takes a TestMain that calls Main.
type BucketServer struct {
	front[BucketRequest]
	// Bucket is the name of the test's bucket.
	Bucket string
	direct *bucketProcess

	reading sync.Mutex       // held while onReads runs
	onReads func(key string) // guarded by mu
}

// BucketRequest is one request that a BucketServer has got.
type BucketRequest struct {
	Method, Path, Query string
	Header              http.Header
}

// BucketOption changes a BucketServer.
type BucketOption func(*frontConfig)

// BucketTLS serves HTTPS with a certificate of a CA made for the test; see CA.
func BucketTLS() BucketOption { return func(c *frontConfig) { c.tls = true } }

// BucketClientCert is BucketTLS, and lets in only those with a certificate of that CA; see ClientCert.
func BucketClientCert() BucketOption {
	return func(c *frontConfig) { c.tls, c.clientCert = true, true }
}

// newFront puts a server of the test's own before a program.
func newFront(t testing.TB, direct *bucketProcess, opts []BucketOption) *BucketServer {
	t.Helper()
	var cfg frontConfig
	for _, o := range opts {
		o(&cfg)
	}
	s := &BucketServer{direct: direct, Bucket: direct.next()}
	proxy := &httputil.ReverseProxy{
		Transport: direct.way, ErrorLog: quietLog(),
		// The signature of a request is of the host that the client knows.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(direct.url)
			r.Out.Host = r.In.Host
		},
	}
	s.open(t, cfg, s.handler(proxy))
	return s
}

// handler records requests and misbehaves as told.
func (s *BucketServer) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := BucketRequest{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header.Clone()}
		s.record(request)
		if status := s.refusal(r); status != 0 {
			http.Error(w, http.StatusText(status), status)
			return
		}
		s.mu.Lock()
		reads := s.onReads
		s.mu.Unlock()
		if key, ok := s.keyOf(request); ok && reads != nil {
			s.reading.Lock()
			reads(key)
			s.reading.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}

// keyOf is the key of the object that a request reads.
func (s *BucketServer) keyOf(r BucketRequest) (string, bool) {
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
func (s *BucketServer) Endpoint() string {
	if s.http == nil {
		return "" // there is none: the test names the server
	}
	return s.http.Listener.Addr().String()
}

// Reads returns the keys of the objects that were downloaded so far, in that order.
func (s *BucketServer) Reads() []string {
	var keys []string
	for _, r := range s.Requests() {
		if key, ok := s.keyOf(r); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// OnRead is called with the key of each object before it is read, one after the other; nil ends it.
func (s *BucketServer) OnRead(f func(key string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// bucketProcesses are those of the package, by the name of the program; guarded by shared.
var bucketProcesses = map[string]*bucketProcess{}

// sharedProcess starts a program when the first test asks for it. It answers at the URL as soon as it runs.
func sharedProcess(t testing.TB, name string, start func(p *bucketProcess) (command *exec.Cmd, health string, err error)) *bucketProcess {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		t.Fatal("testkit: this package shares no servers: give it a TestMain that calls testkit.Main")
	}
	p := bucketProcesses[name]
	if p == nil {
		p = &bucketProcess{}
		bucketProcesses[name] = p
		p.err = p.start(start)
	}
	if p.err != nil {
		t.Fatalf("testkit: start %s: %v", name, p.err)
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

func endBucketProcesses() {
	for _, p := range bucketProcesses {
		if p.process != nil {
			_ = p.process.Process.Kill()
		}
		_ = os.RemoveAll(p.dir)
	}
}

// freePort is a port of this machine that nobody listens at.
func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// TLSServer is any server with a certificate of a CA made for the test.
type TLSServer struct{ front[struct{}] }

// NewTLS starts a server over HTTPS that ends with the test.
func NewTLS(t testing.TB, handler http.Handler) *TLSServer {
	t.Helper()
	s := &TLSServer{}
	s.open(t, frontConfig{tls: true}, handler)
	return s
}
