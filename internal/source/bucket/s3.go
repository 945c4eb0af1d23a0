package bucket

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// s3 is a client of anything that speaks S3.
type s3 struct {
	core        minio.Core
	bucket      string
	credentials *credentials.Credentials
	way         *http.Transport
	// directory is the way to the token service of Login.LDAP; nil without one.
	directory *http.Transport
}

func newS3(where location, req Request, way *http.Transport) (client, error) {
	way.DisableCompression = true // what is stored is what is wanted
	s := &s3{bucket: where.bucket, way: way}
	login := req.Login
	switch {
	case login.AccessKey != "":
		s.credentials = credentials.NewStaticV4(login.AccessKey, login.SecretKey, login.SessionToken)
	case login.LDAP != nil:
		settings, err := login.LDAP.TLS.Config(directoryCerts)
		if err != nil {
			return nil, err
		}
		s.directory = reach.Transport(settings, req.Proxy, downloads)
		s.credentials = credentials.New(&credentials.LDAPIdentity{
			Client: &http.Client{Transport: s.directory}, STSEndpoint: login.LDAP.Endpoint,
			LDAPUsername: login.LDAP.Username, LDAPPassword: login.LDAP.Password,
		})
	}
	c, err := minio.New(where.base.Host, &minio.Options{
		Creds: s.credentials, Secure: where.base.Scheme == "https", Transport: way, Region: where.region,
		// How often a request is made is decided for all clients alike; see again.
		MaxRetries: 1,
	})
	if err != nil {
		return nil, &failure.Error{Op: "read", Object: "spec.endpoint " + where.base.Host, Kind: failure.Invalid, Err: err, Remedy: "correct it"}
	}
	s.core = minio.Core{Client: c}
	return s, nil
}

// directoryError says that it is the token service that failed.
type directoryError struct{ err error }

func (e *directoryError) Error() string { return e.err.Error() }

func (e *directoryError) Unwrap() error { return e.err }

func (s *s3) begin(ctx context.Context) error {
	if s.directory == nil {
		return nil
	}
	_, err := s.credentials.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: s.directory}, Context: ctx})
	if err != nil {
		return &directoryError{err}
	}
	return nil
}

func (s *s3) list(ctx context.Context, prefix string, visit func(object) error) error {
	opts := minio.ListObjectsOptions{Recursive: true, Prefix: prefix, UseV1: s3utils.IsGoogleEndpoint(*s.core.EndpointURL())}
	for o := range s.core.ListObjectsIter(ctx, s.bucket, opts) {
		if o.Err != nil {
			return o.Err
		}
		if err := visit(object{key: o.Key, etag: o.ETag, size: o.Size}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *s3) open(ctx context.Context, o object) (io.ReadCloser, error) {
	opts := minio.GetObjectOptions{}
	if err := opts.SetMatchETag(o.etag); err != nil {
		return nil, err
	}
	body, info, _, err := s.core.GetObject(ctx, s.bucket, o.key, opts)
	if err != nil {
		if r, ok := s.reply(err); ok && (r.status == http.StatusPreconditionFailed || r.status == http.StatusNotFound && r.code != "NoSuchBucket") {
			return nil, errMoved
		}
		return nil, err
	}
	if info.ETag != o.etag { // not every server heeds the condition
		_ = body.Close()
		return nil, errMoved
	}
	return body, nil
}

func (s *s3) reply(err error) (reply, bool) {
	var r minio.ErrorResponse
	if !errors.As(err, &r) || r.StatusCode == 0 {
		return reply{}, false
	}
	return reply{status: r.StatusCode, code: r.Code, region: r.Region}, true
}

func (s *s3) close() {
	s.way.CloseIdleConnections()
	if s.directory != nil {
		s.directory.CloseIdleConnections()
	}
}
