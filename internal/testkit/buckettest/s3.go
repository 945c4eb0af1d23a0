package buckettest

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// The keys that S3 servers of tests let in.
const (
	S3AccessKey = "test-access-key"
	S3SecretKey = "test-secret-key"
	S3Region    = "us-east-1"
)

// S3Server is a bucket on versitygw, which speaks S3 and keeps objects as files.
type S3Server struct {
	*Server
	admin *minio.Client
}

// NewS3 makes a bucket for this test. Without bin/tools/versitygw the test is skipped.
func NewS3(t testing.TB, opts ...Option) *S3Server {
	t.Helper()
	executable := testkit.Tool(t, "versitygw")
	p := sharedProcess(t, "versitygw", func(p *bucketProcess) (*exec.Cmd, string, error) {
		socket, data := filepath.Join(p.dir, "s3"), filepath.Join(p.dir, "data")
		p.url = &url.URL{Scheme: "http", Host: "s3"}
		p.way = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
		command := exec.Command(executable, "--quiet", "--access", S3AccessKey, "--secret", S3SecretKey, "--region", S3Region,
			"--port", socket, "--health", "/health", "posix", data)
		return command, "/health", os.Mkdir(data, 0o700)
	})
	s := &S3Server{Server: newFront(t, p, opts)}
	var err error
	s.admin, err = minio.New("s3", &minio.Options{Creds: credentials.NewStaticV4(S3AccessKey, S3SecretKey, ""), Transport: p.way, Region: S3Region})
	front.Must(t, err)
	front.Must(t, s.admin.MakeBucket(s.context(), s.Bucket, minio.MakeBucketOptions{Region: S3Region}))
	return s
}

// context is one for what tests do to a server, also after they ended.
func (s *Server) context() context.Context { return context.WithoutCancel(s.T.Context()) }

// Put stores objects by key.
func (s *S3Server) Put(objects map[string]string) {
	s.T.Helper()
	for key, text := range objects {
		_, err := s.admin.PutObject(s.context(), s.Bucket, key, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{})
		front.Must(s.T, err)
	}
}

// Delete removes objects.
func (s *S3Server) Delete(keys ...string) {
	s.T.Helper()
	for _, key := range keys {
		front.Must(s.T, s.admin.RemoveObject(s.context(), s.Bucket, key, minio.RemoveObjectOptions{}))
	}
}
