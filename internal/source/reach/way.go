// Package reach is the room of what all have in common who fetch from servers: whom to trust and what to show, as
// Secrets say it, proxies, mirrors, and what to tell people when a way leads nowhere.
package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Transport is what requests go through: with settings for TLS, by a proxy or, where that is nil, by the one that
// the environment names, with at most idle connections to one server that wait for more to do.
func Transport(settings *tls.Config, proxy *url.URL, idle int) *http.Transport {
	t := &http.Transport{
		TLSClientConfig: settings, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		// Every request has a context with a deadline; no step has one of its own.
		DialContext:         (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConnsPerHost: idle, IdleConnTimeout: 90 * time.Second,
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	return t
}

// ErrProxy is what errors match that are the proxy's.
var ErrProxy = errors.New("the proxy fails")

// Way has the words for how a server is reached.
type Way struct {
	// Server is what is reached: "the server", "the registry".
	Server string
	// Address is where people write how: "the URL", "spec.endpoint".
	Address string
	// Certs is the field that names the Secret with certificates.
	Certs string
	// NoProxy: there is no field that names the Secret of a proxy, and the environment names it.
	NoProxy bool
	// Timeout is how long it may take; 0 where that is not known.
	Timeout time.Duration
}

// Explain is Ended and, where that knows nothing, Met.
func (w Way) Explain(ctx context.Context, e *failure.Error, err error) {
	if !w.Ended(ctx, e, err) {
		w.Met(e, err)
	}
}

// Ended puts into e that time ran out, or that a visit was given up, if either is so.
func (w Way) Ended(ctx context.Context, e *failure.Error, err error) bool {
	var network net.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout():
		e.Kind, e.Err = failure.Timeout, &timeoutError{w}
		e.Remedy = "check the network and " + w.Server + ", or raise spec.timeout"
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		e.Err, e.Remedy = fmt.Errorf("given up: %w", context.Canceled), "it is tried again"
	default:
		return false
	}
	return true
}

// timeoutError says how long a server was given.
type timeoutError struct{ way Way }

func (e *timeoutError) Error() string {
	if e.way.Timeout == 0 {
		return e.way.Server + " has not answered in full in time"
	}
	return fmt.Sprintf("%s has not answered in full within %s", e.way.Server, e.way.Timeout)
}

func (e *timeoutError) Unwrap() error { return context.DeadlineExceeded }

// Met puts into e what was met on the way.
func (w Way) Met(e *failure.Error, err error) {
	e.Err = Plain(err)
	var dns *net.DNSError
	switch {
	case isProxy(err):
		e.Remedy = w.checkProxy()
	case IsTLS(err):
		e.Kind, e.Remedy = failure.Denied, w.explainTLS(err)
	case errors.As(err, &dns):
		e.Err = fmt.Errorf("the host %s cannot be found: %w", dns.Name, errors.New(dns.Err))
		e.Remedy = "check the host name in " + w.Address + " and the DNS"
	case BrokeOff(err):
		e.Err, e.Remedy = fmt.Errorf("the connection broke off: %w", e.Err), "check the network and "+w.Server
	default:
		e.Remedy = "check that " + w.Server + " is up and that it can be reached from here"
	}
}

func (w Way) checkProxy() string {
	if w.NoProxy {
		return "check the proxy that the environment names"
	}
	return "check the proxy and the Secret that " + proxyField + " names"
}

// Status says what a status of HTTP means that is no success.
func (w Way) Status(code int) (failure.Kind, string) {
	switch code {
	case http.StatusUnauthorized:
		return failure.Denied, "check the credentials in the Secret that spec.secretRef names"
	case http.StatusForbidden:
		return failure.Denied, "give the user or token the right to read this repository"
	case http.StatusProxyAuthRequired:
		return failure.Denied, w.checkProxy()
	case http.StatusNotFound, http.StatusGone:
		return failure.NotFound, "check " + w.Address + "; some servers answer so when credentials are missing"
	case http.StatusTooManyRequests:
		return failure.Unavailable, "raise spec.interval"
	default:
		return failure.Unavailable, "see " + w.Server + "'s log"
	}
}

// Plain drops the "Get <URL>:" of net/http: who tells of the error names the address, and the URL may hold a secret.
func Plain(err error) error {
	for {
		var u *url.Error
		if !errors.As(err, &u) {
			return err
		}
		err = u.Err
	}
}

// BrokeOff reports whether a connection ended where it should not.
func BrokeOff(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isProxy(err error) bool {
	var op *net.OpError
	return errors.Is(err, ErrProxy) || errors.As(err, &op) && op.Op == "proxyconnect" || strings.Contains(err.Error(), "Proxy Authentication Required")
}

// fromServer is in errors of alerts that the other side sends, which have no type that is exported.
const fromServer = "remote error: tls: "

// IsTLS reports whether it is TLS on which two sides cannot agree.
func IsTLS(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) ||
		errors.As(err, &alert) || errors.As(err, &record) || strings.Contains(err.Error(), fromServer)
}

func (w Way) explainTLS(err error) string {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "add the certificate of its authority as ca.crt to the Secret that " + w.Certs + " names"
	case strings.Contains(err.Error(), fromServer):
		return w.Server + " wants a client certificate: add tls.crt and tls.key to the Secret that " + w.Certs + " names, or correct them"
	default:
		return "check " + w.Address + " and " + w.Server + "'s certificate"
	}
}
