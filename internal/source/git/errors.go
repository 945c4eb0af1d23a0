package git

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
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/wire"
)

// explain turns what went wrong on the way to a remote into one line that names
// the repository and says what to do.
func (l *lane) explain(ctx context.Context, err error, timeout time.Duration) error {
	var already *failure.Error
	if errors.As(err, &already) {
		return err
	}
	e := &failure.Error{Op: "fetch", Object: l.display, Kind: failure.Unavailable, Err: plain(err)}
	var dns *net.DNSError
	var status *wire.StatusError
	var hostKey *hostKeyError
	var refused *wire.RemoteError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || isTimeout(err):
		e.Kind, e.Err = failure.Timeout, timeoutError(timeout)
		e.Remedy = "check the network and the server, or raise spec.timeout"
	case errors.Is(err, context.Canceled):
		e.Err, e.Remedy = fmt.Errorf("given up: %w", err), "it is tried again"
	case errors.As(err, &status):
		e.Kind, e.Remedy = explainStatus(status.Code)
	case errors.As(err, &hostKey):
		e.Kind, e.Err = failure.Denied, hostKey
		e.Remedy = "if that key is genuine, add it to known_hosts in the Secret"
		if hostKey.changed {
			e.Remedy = "if the server has a new key, put it into known_hosts in the Secret; if not, somebody listens in"
		}
	case errors.Is(err, wire.ErrLogin):
		e.Kind, e.Err = failure.Denied, wire.ErrLogin
		e.Remedy = "check the user in the URL and that the public half of the identity is registered there"
	case isProxy(err):
		e.Remedy = "check the proxy and the Secret that spec.proxySecretRef names"
	case isTLS(err):
		e.Kind, e.Remedy = failure.Denied, explainTLS(err)
	case errors.As(err, &dns):
		e.Err = fmt.Errorf("the host %s cannot be found: %w", dns.Name, errors.New(dns.Err))
		e.Remedy = "check the host name in the URL and the DNS"
	case errors.As(err, &refused):
		e.Kind, e.Remedy = explainRefusal(refused.Message)
	case errors.Is(err, wire.ErrObjectFormat):
		e.Kind, e.Remedy = failure.Unsupported, "use a repository with SHA-1 object names"
	case errors.Is(err, wire.ErrProtocol):
		e.Remedy = "check that the URL is that of a Git repository, and that the server serves smart HTTP"
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		e.Err, e.Remedy = fmt.Errorf("the connection broke off: %w", plain(err)), "check the network and the server"
	default:
		e.Remedy = "check that the server is up and that it can be reached from here"
	}
	return e
}

// timeoutError says how long a server was given.
type timeoutError time.Duration

func (e timeoutError) Error() string {
	return fmt.Sprintf("the server has not answered in full within %s", time.Duration(e))
}

func (timeoutError) Unwrap() error { return context.DeadlineExceeded }

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &t) && t.Timeout())
}

func isProxy(err error) bool {
	var op *net.OpError
	return errors.Is(err, errProxy) || (errors.As(err, &op) && op.Op == "proxyconnect")
}

// plain drops the "Get <URL>:" of net/http: the URL is named already, and the
// inner one may hold a query.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func explainStatus(code int) (failure.Kind, string) {
	switch {
	case code == http.StatusUnauthorized:
		return failure.Denied, "check the credentials in the Secret that spec.secretRef names"
	case code == http.StatusForbidden:
		return failure.Denied, "give the user or token the right to read this repository"
	case code == http.StatusProxyAuthRequired:
		return failure.Denied, "check the Secret that spec.proxySecretRef names"
	case code == http.StatusNotFound || code == http.StatusGone:
		return failure.NotFound, "check the URL; some servers answer so when credentials are missing"
	case code == http.StatusTooManyRequests:
		return failure.Unavailable, "raise spec.interval"
	default:
		return failure.Unavailable, "see the server's log"
	}
}

func isTLS(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) ||
		errors.As(err, &verify) || errors.As(err, &alert) || errors.As(err, &record) || errors.Is(err, wire.ErrDowngrade) ||
		strings.Contains(err.Error(), "remote error: tls: ")
}

func explainTLS(err error) string {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "add the certificate of its authority to the Secret as ca.crt"
	case errors.Is(err, wire.ErrDowngrade):
		return "use the URL that the server redirects to, if that is meant"
	case strings.Contains(err.Error(), "remote error: tls: "):
		return "the server wants a client certificate: add tls.crt and tls.key to the Secret, or correct them"
	default:
		return "check the URL and the server's certificate"
	}
}

// explainRefusal reads what servers say over SSH, where there are no codes.
func explainRefusal(message string) (failure.Kind, string) {
	m := strings.ToLower(message)
	switch {
	case strings.Contains(m, "not found") || strings.Contains(m, "does not exist") || strings.Contains(m, "does not appear to be a git repository"):
		return failure.NotFound, "check the URL, and that the key may read this repository"
	case strings.Contains(m, "denied") || strings.Contains(m, "not allowed") || strings.Contains(m, "unauthorized"):
		return failure.Denied, "give the key the right to read this repository"
	default:
		return failure.Unavailable, "see the server's log"
	}
}
