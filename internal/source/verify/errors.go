package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Cause says why an artifact is not verified.
type Cause string

// The causes, from the one that is farthest from a verified artifact to the one that is
// nearest. Of several signatures, the nearest is told.
const (
	// Unreachable: the registry, or what else has to be asked, did not answer as it should.
	Unreachable Cause = "Unreachable"
	// Unusable: the keys, identities, trusted root or trust policy that were given cannot be used.
	Unusable Cause = "Unusable"
	// Unsigned: there is no signature of this kind.
	Unsigned Cause = "Unsigned"
	// Malformed: there are signatures, and they cannot be read.
	Malformed Cause = "Malformed"
	// Mistrusted: no signature is of a trusted key, or one was tampered with.
	Mistrusted Cause = "Mistrusted"
	// OtherDigest: somebody trusted signed another artifact.
	OtherDigest Cause = "OtherDigest"
	// UntrustedCertificate: a certificate was issued by nobody who is trusted, or
	// proof that it was in force is missing.
	UntrustedCertificate Cause = "UntrustedCertificate"
	// Expired: a certificate was not valid when it was used, or a signature has ended.
	Expired Cause = "Expired"
	// Revoked: a certificate was revoked, or nobody could be asked.
	Revoked Cause = "Revoked"
	// OtherIdentity: the certificate is good, and its owner is not one of those who are trusted.
	OtherIdentity Cause = "OtherIdentity"
)

// nearness orders the causes.
var nearness = map[Cause]int{
	Unsigned: 1, Malformed: 2, Mistrusted: 3, OtherDigest: 4, UntrustedCertificate: 5, Expired: 6, Revoked: 7, OtherIdentity: 8,
}

// Error says that an artifact is not verified.
type Error struct {
	Cause Cause
	Err   error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the failure in words.
func (e *Error) Unwrap() error { return e.Err }

// kinds says whether trying again can help: a signature may be made after the artifact.
var kinds = map[Cause]failure.Kind{Unusable: failure.Invalid, Unsigned: failure.NotFound}

// refuse returns an Error about an object: an artifact, or a key of a Secret.
func refuse(cause Cause, object string, err error, remedy string) *Error {
	kind, ok := kinds[cause]
	if !ok {
		kind = failure.Refused
	}
	op := "verify"
	if cause == Unusable {
		op = "read"
	}
	return &Error{cause, &failure.Error{Op: op, Kind: kind, Object: object, Err: err, Remedy: remedy}}
}

// unreachable says that somebody did not answer.
func unreachable(ctx context.Context, object string, what string, err error) *Error {
	f := &failure.Error{Op: "verify", Kind: failure.Unavailable, Object: object, Err: fmt.Errorf("%s: %w", what, err)}
	var answer *transport.Error
	var network net.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		f.Kind = failure.Timeout
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		f.Kind = failure.Denied
		f.Remedy = "check that the credentials may read the signatures"
	}
	return &Error{Unreachable, f}
}

// nearest keeps the error that tells most: the one that is nearest to a verified artifact.
func nearest(a, b *Error) *Error {
	switch {
	case a == nil:
		return b
	case b == nil || nearness[b.Cause] <= nearness[a.Cause]:
		return a
	default:
		return b
	}
}
