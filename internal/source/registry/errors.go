package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// DefaultTimeout is how long a visit may take where nobody says otherwise.
const DefaultTimeout = 60 * time.Second

// timeoutKey is that of a visit's timeout in its context.
type timeoutKey struct{}

// WithTimeout bounds a visit; 0 means DefaultTimeout. Errors tell how long it was.
func WithTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return context.WithTimeout(context.WithValue(ctx, timeoutKey{}, timeout), timeout)
}

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
	timeout, _ := ctx.Value(timeoutKey{}).(time.Duration)
	way := reach.Way{Server: "the registry", Address: "the URL", Certs: certsField, Timeout: timeout}
	if way.Ended(ctx, e, err) {
		return e
	}
	var status *transport.Error
	switch {
	case reach.IsTLS(err): // the library goes on without encryption, and what it is answered then is beside the point
		way.Met(e, err)
	case errors.As(err, &status):
		e.Kind, e.Remedy, e.Err = explainStatus(status)
	case errors.Is(err, errUnencrypted):
		e.Err, e.Remedy = errUnencrypted, "give the registry a certificate, or set spec.insecure"
	case otherBytes(err):
		e.Err, e.Remedy = errors.New("the registry sent other bytes than it promised"), "check the registry, and who is between it and here"
	default:
		way.Met(e, err)
	}
	return e
}

// otherBytes reports whether the library found other bytes than it asked for, which it has no type for.
func otherBytes(err error) bool {
	return strings.Contains(err.Error(), "does not match requested digest") || strings.Contains(err.Error(), "error verifying")
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
