package testkit

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// front is the door of a server on loopback: with a certificate where asked for, with a log of
// requests, and misbehaving as told. It closes with the test.
type front[Request any] struct {
	t    testing.TB
	http *httptest.Server
	ca   *testCA // issued the server's certificate, when it has one

	mu     sync.Mutex // guards the fields below, and what the server adds to them
	hung   chan struct{}
	status int
	log    []Request
}

// frontConfig says how a front is reached.
type frontConfig struct{ tls, clientCert bool }

// open starts to serve. A server that hangs lets go of its requests before it closes.
func (f *front[Request]) open(t testing.TB, cfg frontConfig, handler http.Handler) {
	t.Helper()
	f.t, f.http = t, httptest.NewUnstartedServer(handler)
	f.http.Config.ErrorLog = quietLog()
	if cfg.tls {
		f.ca = newTestCA(t)
		f.http.TLS = f.ca.serverConfig(t, cfg.clientCert)
		f.http.StartTLS()
	} else {
		f.http.Start()
	}
	t.Cleanup(f.Stop)
}

// record notes a request and returns its number.
func (f *front[Request]) record(r Request) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, r)
	return len(f.log) - 1
}

// refusal returns the status that Refuse asked for, 0 for none. While the server hangs it does not return.
func (f *front[Request]) refusal(r *http.Request) int {
	f.mu.Lock()
	hung, status := f.hung, f.status
	f.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	}
	return status
}

// Requests returns what the server has been asked so far.
func (f *front[Request]) Requests() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Request(nil), f.log...)
}

// asked counts the requests that are such.
func (f *front[Request]) asked(such func(Request) bool) int {
	n := 0
	for _, r := range f.Requests() {
		if such(r) {
			n++
		}
	}
	return n
}

// Hang makes every request over HTTP wait without an answer, until called with false.
func (f *front[Request]) Hang(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on && f.hung == nil {
		f.hung = make(chan struct{})
	}
	if !on && f.hung != nil {
		close(f.hung)
		f.hung = nil
	}
}

// Refuse answers every request over HTTP with a status, such as 500; 0 ends it.
func (f *front[Request]) Refuse(status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = status
}

// Stop closes the server, so that connections are refused.
func (f *front[Request]) Stop() {
	f.Hang(false)
	f.http.CloseClientConnections()
	f.http.Close()
}

// URL is the base of the server, without a slash at the end.
func (f *front[Request]) URL() string { return f.http.URL }

// CA returns the PEM certificate of the CA that issued the server's.
func (f *front[Request]) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.ca.cert.Raw})
}

// ClientCert returns a PEM certificate and key that a server with client certificates admits.
func (f *front[Request]) ClientCert() (cert, key []byte) {
	return f.ca.issue(f.t, x509.ExtKeyUsageClientAuth)
}
