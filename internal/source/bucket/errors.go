package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/reach"
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
	e := &failure.Error{Op: op, Object: f.where.display, Kind: failure.Unavailable, Err: reach.Plain(err)}
	if r, ok := f.lane.client.reply(err); ok {
		f.explainReply(e, r)
		return e
	}
	var directory *directoryError
	if errors.As(err, &directory) {
		f.explainDirectory(ctx, e, directory.err)
		return e
	}
	f.explainWay(ctx, e, err, "spec.endpoint", certsField)
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
	f.explainWay(ctx, e, err, "spec.sts.endpoint", directoryCerts)
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

// explainWay says what happened between us and a server, with the fields that say how to get there.
func (f *fetch) explainWay(ctx context.Context, e *failure.Error, err error, address, certs string) {
	way := reach.Way{Server: "the server", Address: address, Certs: certs, Timeout: f.req.timeout()}
	switch {
	case way.Ended(ctx, e, err):
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Err, e.Remedy = errors.New("the server does not speak TLS"), "set spec.insecure to true if that is meant"
	default:
		way.Met(e, err)
		if reach.BrokeOff(err) {
			e.Remedy += ", and that spec.insecure says right whether it speaks TLS"
		}
	}
}
