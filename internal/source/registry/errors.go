package registry

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

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/bowline-dev/bowline/internal/failure"
)

// DefaultTimeout is how long a visit may take where nobody says otherwise.
const DefaultTimeout = 60 * time.Second

// WithTimeout bounds a visit; 0 means DefaultTimeout. Errors tell how long it was.
func WithTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return context.WithTimeoutCause(ctx, timeout, timeoutError(timeout))
}

// timeoutError says how long a registry was given.
type timeoutError time.Duration

func (e timeoutError) Error() string {
	return fmt.Sprintf("the registry has not answered in full within %s", time.Duration(e))
}

func (timeoutError) Unwrap() error { return context.DeadlineExceeded }

// answered reports whether an error is what the registry said, and not that it said nothing that
// can be understood.
func answered(err error) bool {
	var status *transport.Error
	var network net.Error
	return errors.As(err, &status) && status.StatusCode != http.StatusMethodNotAllowed || errors.As(err, &network)
}

// explain turns what went wrong on a visit into one line that names the repository and says what
// to do. It shows nothing of what a registry put into its answer but the code and message of its errors.
func (r *Repository) explain(ctx context.Context, op, what string, err error) error {
	var already *failure.Error
	if errors.As(err, &already) {
		return already
	}
	e := &failure.Error{Op: op, Object: r.display + what, Kind: failure.Unavailable}
	var status *transport.Error
	var took timeoutError
	var dns *net.DNSError
	switch {
	case errors.As(context.Cause(ctx), &took):
		e.Kind, e.Err, e.Remedy = failure.Timeout, took, "check the network and the registry, or raise spec.timeout"
	case ctx.Err() != nil:
		e.Err, e.Remedy = fmt.Errorf("given up: %w", context.Cause(ctx)), "it is tried again"
	case isTLS(err):
		e.Kind, e.Err, e.Remedy = failure.Denied, plain(err), explainTLS(err)
	case errors.As(err, &status):
		e.Kind, e.Remedy, e.Err = explainStatus(status)
	case errors.Is(err, errUnencrypted):
		e.Err, e.Remedy = plain(err), "give the registry a certificate, or set spec.insecure"
	case isProxy(err):
		e.Err, e.Remedy = plain(err), "check the proxy and the Secret that spec.proxySecretRef names"
	case errors.As(err, &dns):
		e.Err = fmt.Errorf("the host %s cannot be found: %w", dns.Name, errors.New(dns.Err))
		e.Remedy = "check the host name in the URL and the DNS"
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		e.Err, e.Remedy = errors.New("the connection broke off"), "check the network and the registry"
	case otherBytes(err):
		e.Err, e.Remedy = errors.New("the registry sent other bytes than it promised"), "check the registry, and who is between it and here"
	default:
		e.Err, e.Remedy = plain(err), "check that the registry is up and that it can be reached from here"
	}
	return e
}

// otherBytes reports whether the library found other bytes than it asked for, which it has no type for.
func otherBytes(err error) bool {
	return strings.Contains(err.Error(), "does not match requested digest") || strings.Contains(err.Error(), "error verifying")
}

// plain drops the "Get <URL>:" of net/http: the URL may hold a signature.
func plain(err error) error {
	for {
		var u *url.Error
		if !errors.As(err, &u) {
			return err
		}
		err = u.Err
	}
}

func explainStatus(s *transport.Error) (kind failure.Kind, remedy string, err error) {
	err = fmt.Errorf("the registry answers %d %s", s.StatusCode, http.StatusText(s.StatusCode))
	for _, d := range s.Errors {
		if d.Message != "" {
			err = fmt.Errorf("%w: %s", err, clip(d.Message))
			break
		}
	}
	code := s.StatusCode
	switch {
	case code == http.StatusUnauthorized:
		return failure.Denied, "check the credentials: spec.secretRef, spec.serviceAccountName or spec.provider", err
	case code == http.StatusForbidden:
		return failure.Denied, "give the user or token the right to pull from this repository", err
	case code == http.StatusProxyAuthRequired:
		return failure.Denied, "check the Secret that spec.proxySecretRef names", err
	case code == http.StatusNotFound || code == http.StatusGone:
		return failure.NotFound, "push it, or correct the URL or the reference; some registries answer so when credentials are missing", err
	case code == http.StatusTooManyRequests:
		return failure.Unavailable, "raise spec.interval, or give credentials", err
	default:
		return failure.Unavailable, "see the registry's log", err
	}
}

func clip(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 200 {
		return text[:200] + "..."
	}
	return text
}

func isProxy(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "proxyconnect"
}

func isTLS(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) || errors.As(err, &alert) ||
		strings.Contains(err.Error(), "remote error: tls: ")
}

func explainTLS(err error) string {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "add the certificate of its authority as ca.crt to the Secret that spec.certSecretRef names"
	case strings.Contains(err.Error(), "remote error: tls: "):
		return "the registry wants a client certificate: add tls.crt and tls.key to the Secret that spec.certSecretRef names, or correct them"
	default:
		return "check the URL and the registry's certificate"
	}
}
