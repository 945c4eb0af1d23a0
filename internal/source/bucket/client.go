package bucket

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// object is an object as a server lists it.
type object struct {
	key string
	// etag is the entity tag in the form in which it is part of a revision.
	etag string
	size int64
	// version is what the client needs to get the object as it was listed.
	version string
}

// client speaks to one bucket. It is safe for use by many goroutines.
type client interface {
	// begin gets credentials, if that takes a request.
	begin(ctx context.Context) error
	// list calls visit with every object whose key begins with prefix, and ends when that fails.
	list(ctx context.Context, prefix string, visit func(object) error) error
	// open returns the content of an object as it was listed, and errMoved when it is
	// not there any more or another one.
	open(ctx context.Context, o object) (io.ReadCloser, error)
	// reply reads what an error says of the server's answer.
	reply(err error) (reply, bool)
	close()
}

// reply is what a server answers instead of what it was asked for. Its message is left out: it may hold
// anything, also what it was sent.
type reply struct {
	status int
	code   string
	region string
}

// errMoved says that a bucket is not any more as it was listed.
var errMoved = errors.New("an object changed or went between the listing and its download")

// The fields that name Secrets.
const (
	refSecret      = "spec.secretRef" //nolint:gosec // the name of a field
	certsField     = "spec.certSecretRef"
	directoryCerts = "spec.sts.certSecretRef"
)

// downloads is how many objects of one bucket are downloaded at one time.
const downloads = 8

func newClient(where location, req Request) (client, error) {
	settings, err := req.TLS.Config(certsField)
	if err != nil {
		return nil, err
	}
	way := reach.Transport(settings, req.Proxy, downloads)
	switch where.provider {
	case Generic, AWS:
		return newS3(where, req, way)
	case Google:
		return newGoogle(where, req, way)
	case Azure:
		return newAzure(where, req, way)
	default:
		return nil, invalidField("spec.provider", where.provider, "there is no such provider", "write generic, aws, gcp or azure")
	}
}

// tries is how often a request is made that failed for a reason that passes.
const tries = 3

// again makes a request until it succeeds, fails for good, or has been made often enough.
func again(ctx context.Context, c client, f func() error) error {
	wait := 100 * time.Millisecond
	for i := 1; ; i++ {
		err := f()
		if err == nil || i == tries || !passes(c, err) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
			wait *= 3
		}
	}
}

// passes reports whether it is worth while to try again at once.
func passes(c client, err error) bool {
	if r, ok := c.reply(err); ok {
		return r.status >= 500 || r.status == 429
	}
	return reach.BrokeOff(err)
}
