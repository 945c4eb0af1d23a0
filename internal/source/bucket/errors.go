package bucket

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

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Codes of replies that servers have no common word for.
const (
	codeNoBucket = "NoSuchBucket"
	codeLogin    = "LoginRefused"
)

// explain turns what went wrong on the way to a bucket into one line that names it and says what to do.
func (f *fetch) explain(ctx context.Context, op string, err error) error {
	var already *failure.Error
	if errors.As(err, &already) {
		return err
	}
	e := &failure.Error{Op: op, Object: f.where.display, Kind: failure.Unavailable, Err: plain(err)}
	if r, ok := f.lane.client.reply(err); ok {
		f.explainReply(e, r)
		return e
	}
	var directory *directoryError
	if errors.As(err, &directory) {
		f.explainDirectory(ctx, e, directory.err)
		return e
	}
	f.explainWay(ctx, e, err)
	return e
}

// explainDirectory says what is the matter with a token service.
func (f *fetch) explainDirectory(ctx context.Context, e *failure.Error, err error) {
	e.Op, e.Object = "get keys from", "the token service of spec.sts.endpoint"
	var r credentials.ErrorResponse
	if errors.As(err, &r) && r.STSError.Code != "" {
		e.Kind, e.Err = failure.Denied, fmt.Errorf("it answers %s", r.STSError.Code)
		e.Remedy = "check the user and password in the Secret that spec.sts.secretRef names"
		return
	}
	f.explainWay(ctx, e, err)
	e.Remedy = strings.NewReplacer("spec.certSecretRef", "spec.sts.certSecretRef", "spec.endpoint", "spec.sts.endpoint").Replace(e.Remedy)
}

// explainReply says what an answer means.
func (f *fetch) explainReply(e *failure.Error, r reply) {
	e.Err = fmt.Errorf("the server answers %s (%d)", r.code, r.status)
	if r.code == "" {
		e.Err = fmt.Errorf("the server answers %d %s", r.status, http.StatusText(r.status))
	}
	switch {
	case r.code == codeNoBucket || r.code == "ContainerNotFound" || r.status == http.StatusNotFound:
		e.Kind, e.Err = failure.NotFound, errors.New("there is no such bucket")
		e.Remedy = "create it, or correct spec.bucketName and spec.endpoint"
	case r.region != "" && f.where.region != "" && r.region != f.where.region:
		e.Kind, e.Err = failure.Invalid, fmt.Errorf("it is in the region %s and not in %s", r.region, f.where.region)
		e.Remedy = "correct spec.region"
	case r.code == "AuthorizationHeaderMalformed" || r.status/100 == 3:
		e.Kind, e.Remedy = failure.Invalid, "set spec.region to the region of the bucket, and spec.endpoint to the server there"
	case r.code == codeLogin:
		e.Kind, e.Err, e.Remedy = failure.Denied, fmt.Errorf("the credentials are refused (%d)", r.status), f.checkLogin()
	case r.code == "RequestTimeTooSkewed":
		e.Remedy = "set the clock of this machine"
	default:
		e.Kind, e.Remedy = f.explainStatus(r.status)
	}
}

// explainStatus is explainReply where the code says nothing.
func (f *fetch) explainStatus(status int) (failure.Kind, string) {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return failure.Denied, f.checkLogin() + ", and that they may list the bucket and read its objects"
	case status == http.StatusProxyAuthRequired:
		return failure.Denied, "check the Secret that spec.proxySecretRef names"
	case status == http.StatusTooManyRequests:
		return failure.Unavailable, "raise spec.interval"
	case status >= 500:
		return failure.Unavailable, "see the server's log"
	case status == http.StatusBadRequest && f.where.base.Scheme == "http":
		return failure.Unavailable, "check spec.endpoint and spec.provider, and spec.insecure: the server may want TLS"
	default:
		return failure.Unavailable, "check spec.endpoint and spec.provider"
	}
}

// checkLogin says where the credentials are.
func (f *fetch) checkLogin() string {
	switch {
	case f.req.Login.Issued:
		return "check the rights of the identity"
	case f.req.Login.LDAP != nil:
		return "check the user's rights in the directory"
	case f.req.Login.empty():
		return "name a Secret with credentials in spec.secretRef: none were shown"
	default:
		return "check the credentials in the Secret that spec.secretRef names"
	}
}

// empty reports whether nothing is shown.
func (l Login) empty() bool {
	return l.LDAP == nil && l.AccessKey+l.Token+l.Azure.ClientID+l.Azure.AccountKey+l.Azure.SAS == "" && len(l.ServiceAccount) == 0
}

// explainWay says what happened between us and a server.
func (f *fetch) explainWay(ctx context.Context, e *failure.Error, err error) {
	e.Err = plain(err)
	var dns *net.DNSError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || isTimeout(err):
		e.Kind, e.Err = failure.Timeout, timeoutError(f.req.timeout())
		e.Remedy = "check the network and the server, or raise spec.timeout"
	case errors.Is(err, context.Canceled):
		e.Err, e.Remedy = fmt.Errorf("given up: %w", context.Canceled), "it is tried again"
	case isProxy(err):
		e.Remedy = "check the proxy and the Secret that spec.proxySecretRef names"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Err, e.Remedy = errors.New("the server does not speak TLS"), "set spec.insecure to true if that is meant"
	case isTLS(err):
		e.Kind, e.Remedy = failure.Denied, explainTLS(err)
	case errors.As(err, &dns):
		e.Err = fmt.Errorf("the host %s cannot be found: %w", dns.Name, errors.New(dns.Err))
		e.Remedy = "check the host name in spec.endpoint and the DNS"
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isReset(err):
		e.Err, e.Remedy = fmt.Errorf("the connection broke off: %w", e.Err), "check the network and the server, and that spec.insecure says right whether it speaks TLS"
	default:
		e.Remedy = "check that the server is up and that it can be reached from here"
	}
}

// timeoutError says how long a server was given.
type timeoutError time.Duration

func (e timeoutError) Error() string {
	return fmt.Sprintf("the server has not answered in full within %s", time.Duration(e))
}

func (timeoutError) Unwrap() error { return context.DeadlineExceeded }

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isProxy(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "proxyconnect" || strings.Contains(err.Error(), "Proxy Authentication Required")
}

// plain drops the "Get <URL>:" of net/http: the bucket is named already, and the URL may hold a signature.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func isTLS(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) ||
		errors.As(err, &record) || errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls: ")
}

func explainTLS(err error) string {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return "add the certificate of its authority as ca.crt to the Secret that spec.certSecretRef names"
	case strings.Contains(err.Error(), "remote error: tls: "):
		return "the server wants a client certificate: add tls.crt and tls.key to the Secret that spec.certSecretRef names, or correct them"
	default:
		return "check spec.endpoint and the server's certificate"
	}
}
