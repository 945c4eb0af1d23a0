package buckettest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"testing"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// GoogleServer is a bucket on fake-gcs-server, which speaks the JSON API of Google Cloud Storage and
// keeps objects in memory. It lets everybody in.
type GoogleServer struct{ *Server }

// NewGoogle makes a bucket for this test. Without bin/tools/fake-gcs-server the test is skipped.
func NewGoogle(t testing.TB, opts ...Option) *GoogleServer {
	t.Helper()
	executable := testkit.Tool(t, "fake-gcs-server")
	p := sharedProcess(t, "fake-gcs-server", func(p *bucketProcess) (*exec.Cmd, string, error) {
		port, err := front.FreePort()
		p.url = &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(port)}
		p.way, p.google = &http.Transport{}, true
		return exec.Command(executable, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", strconv.Itoa(port), "-log-level", "error"), "/_internal/healthcheck", err
	})
	s := &GoogleServer{newFront(t, p, opts)}
	name, err := json.Marshal(map[string]string{"name": s.Bucket})
	front.Must(t, err)
	s.call(http.MethodPost, "/storage/v1/b?project=test", "application/json", name)
	return s
}

// Put stores objects by key.
func (s *GoogleServer) Put(objects map[string]string) {
	s.T.Helper()
	for key, text := range objects {
		s.call(http.MethodPost, "/upload/storage/v1/b/"+s.Bucket+"/o?uploadType=media&name="+url.QueryEscape(key), "application/octet-stream", []byte(text))
	}
}

// Delete removes objects.
func (s *GoogleServer) Delete(keys ...string) {
	s.T.Helper()
	for _, key := range keys {
		s.call(http.MethodDelete, "/storage/v1/b/"+s.Bucket+"/o/"+url.PathEscape(key), "", nil)
	}
}

func (s *GoogleServer) call(method, path, kind string, body []byte) {
	s.T.Helper()
	request, err := http.NewRequestWithContext(s.context(), method, s.direct.url.String()+path, bytes.NewReader(body))
	front.Must(s.T, err)
	request.Header.Set("Content-Type", kind)
	answer, err := s.direct.way.RoundTrip(request)
	front.Must(s.T, err)
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		front.Must(s.T, fmt.Errorf("%s %s: %s", method, path, answer.Status))
	}
}
