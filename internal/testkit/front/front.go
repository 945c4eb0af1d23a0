// Package front is the door of servers that tests talk to: with a certificate where asked for, with a log of
// requests, and misbehaving as told.
package front

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Front is the door of a server on loopback, for the server to embed. It closes with the test.
type Front[Request any] struct {
	T    testing.TB
	HTTP *httptest.Server
	ca   *authority // issued the server's certificate, when it has one

	Mu     sync.Mutex // guards the fields below, and what the server adds to them
	hung   chan struct{}
	status int
	Log    []Request
}

// Config says how a front is reached: with a certificate of its own, and only with one of the client's.
type Config struct{ TLS, ClientCert bool }

// Open starts to serve. A server that hangs lets go of its requests before it closes.
func (f *Front[Request]) Open(t testing.TB, cfg Config, handler http.Handler) {
	t.Helper()
	f.T, f.HTTP = t, httptest.NewUnstartedServer(handler)
	f.HTTP.Config.ErrorLog = QuietLog()
	if cfg.TLS {
		f.ca = newAuthority(t)
		f.HTTP.TLS = f.ca.serverConfig(t, cfg.ClientCert)
		f.HTTP.StartTLS()
	} else {
		f.HTTP.Start()
	}
	t.Cleanup(f.Stop)
}

// Record notes a request and returns its number.
func (f *Front[Request]) Record(r Request) int {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Log = append(f.Log, r)
	return len(f.Log) - 1
}

// Refusal returns the status that Refuse asked for, 0 for none. While the server hangs it does not return.
func (f *Front[Request]) Refusal(r *http.Request) int {
	f.Mu.Lock()
	hung, status := f.hung, f.status
	f.Mu.Unlock()
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
func (f *Front[Request]) Requests() []Request {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return append([]Request(nil), f.Log...)
}

// Count counts the requests that are such.
func (f *Front[Request]) Count(such func(Request) bool) int {
	n := 0
	for _, r := range f.Requests() {
		if such(r) {
			n++
		}
	}
	return n
}

// Hang makes every request over HTTP wait without an answer, until called with false.
func (f *Front[Request]) Hang(on bool) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if on && f.hung == nil {
		f.hung = make(chan struct{})
	}
	if !on && f.hung != nil {
		close(f.hung)
		f.hung = nil
	}
}

// Refuse answers every request over HTTP with a status, such as 500; 0 ends it.
func (f *Front[Request]) Refuse(status int) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.status = status
}

// Stop closes the server, so that connections are refused.
func (f *Front[Request]) Stop() {
	f.Hang(false)
	f.HTTP.CloseClientConnections()
	f.HTTP.Close()
}

// URL is the base of the server, without a slash at the end.
func (f *Front[Request]) URL() string { return f.HTTP.URL }

// CA returns the PEM certificate of the CA that issued the server's.
func (f *Front[Request]) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.ca.cert.Raw})
}

// ClientCert returns a PEM certificate and key that a server with client certificates admits.
func (f *Front[Request]) ClientCert() (cert, key []byte) {
	return f.ca.issue(f.T, x509.ExtKeyUsageClientAuth)
}

// TLSServer is any server with a certificate of a CA made for the test.
type TLSServer struct{ Front[struct{}] }

// NewTLS starts a server over HTTPS that ends with the test.
func NewTLS(t testing.TB, handler http.Handler) *TLSServer {
	t.Helper()
	s := &TLSServer{}
	s.Open(t, Config{TLS: true}, handler)
	return s
}
