package git

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/wire"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// explain turns what went wrong on the way to a remote into one line that names
// the repository and says what to do.
func (l *lane) explain(ctx context.Context, err error, timeout time.Duration) error {
	var already *failure.Error
	if errors.As(err, &already) {
		return err
	}
	e := &failure.Error{Op: "fetch", Object: l.display, Kind: failure.Unavailable, Err: reach.Plain(err)}
	way := reach.Way{Server: "the server", Address: "the URL", Certs: secretField, Timeout: timeout}
	if way.Ended(ctx, e, err) {
		return e
	}
	var status *wire.StatusError
	var hostKey *hostKeyError
	var refused *wire.RemoteError
	switch {
	case errors.As(err, &status):
		e.Kind, e.Remedy = way.Status(status.Code)
	case errors.As(err, &hostKey):
		e.Kind, e.Err = failure.Denied, hostKey
		e.Remedy = "if that key is genuine, add it to known_hosts in the Secret"
		if hostKey.changed {
			e.Remedy = "if the server has a new key, put it into known_hosts in the Secret; if not, somebody listens in"
		}
	case errors.Is(err, wire.ErrLogin):
		e.Kind, e.Err = failure.Denied, wire.ErrLogin
		e.Remedy = "check the user in the URL and that the public half of the identity is registered there"
	case errors.Is(err, wire.ErrDowngrade):
		e.Kind, e.Remedy = failure.Denied, "use the URL that the server redirects to, if that is meant"
	case errors.As(err, &refused):
		e.Kind, e.Remedy = explainRefusal(refused.Message)
	case errors.Is(err, wire.ErrObjectFormat):
		e.Kind, e.Remedy = failure.Unsupported, "use a repository with SHA-1 object names"
	case errors.Is(err, wire.ErrProtocol):
		e.Remedy = "check that the URL is that of a Git repository, and that the server serves smart HTTP"
	default:
		way.Met(e, err)
	}
	return e
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
