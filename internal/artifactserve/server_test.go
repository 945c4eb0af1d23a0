package artifactserve_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
	"github.com/bowline-dev/bowline/internal/source/compose"
	"github.com/bowline-dev/bowline/internal/source/local"
)

// artifact is a folder with a file of each sort.
func artifact(t *testing.T, content string) source.Artifact {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"app/a.yaml": content, "app/empty": "", "long/" + strings.Repeat("n", 200): "x", "ignored.yaml": "x", ".sourceignore": "ignored.yaml\n", "large.bin": strings.Repeat("x", 200_000), "too-large.bin": strings.Repeat("x", 300_000),
	} {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte(data), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link.yaml": "app/a.yaml", "linked": "app", "out": "../../etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	a := open(t, dir, local.Options{MaxFileSize: 250_000})
	a.Revision = "main@sha1:" + hex.EncodeToString([]byte(content))
	return a
}

// open is a folder as an artifact.
func open(t *testing.T, dir string, o local.Options) source.Artifact {
	t.Helper()
	tree, err := local.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	a, err := tree.Artifact()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var name = types.NamespacedName{Namespace: "apps", Name: "repo"}

// A link to a folder is not walked, whether a tree is as it came or was put together: this one
// has 2^40 paths.
func TestLinksInCircles(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(os.Symlink(".", filepath.Join(dir, "a")), os.Symlink(".", filepath.Join(dir, "b")), os.WriteFile(filepath.Join(dir, "f.yaml"), []byte("f"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, dir, local.Options{})
	b := compose.New()
	if err := errors.Join(b.Graft(a, ".", "."), b.Graft(a, ".", "sub"), b.Graft(a, ".", ".")); err != nil {
		t.Fatal(err)
	}
	for want, tree := range map[int]source.Tree{1: a.Tree, 2: b.Tree()} {
		var out bytes.Buffer
		if err := artifactserve.Write(t.Context(), &out, tree); err != nil {
			t.Fatal(err)
		}
		got, err := archive.Read(&out, archive.Limits{MaxEntries: want + 1})
		if err != nil {
			t.Fatal(err)
		}
		if data, err := got.Tree.ReadFile("f.yaml"); string(data) != "f" {
			t.Errorf("read %q, %v", data, err)
		}
	}
}

func serve(t *testing.T) (*artifactserve.Server, *httptest.Server) {
	t.Helper()
	var s *artifactserve.Server
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServeHTTP(w, r) }))
	s = artifactserve.NewServer(h.Listener.Addr().String(), logr.Discard())
	h.Start()
	t.Cleanup(h.Close)
	return s, h
}

func publish(t *testing.T, s *artifactserve.Server, a source.Artifact) artifactserve.Entry {
	t.Helper()
	e, err := s.Publish(t.Context(), "GitRepository", name, a)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What is served has the digest and size that were told, and holds the files of the source.
func TestRoundTrip(t *testing.T) {
	s, _ := serve(t)
	a := artifact(t, "one")
	e := publish(t, s, a)
	if !strings.HasSuffix(e.URL, "/gitrepository/apps/repo/6f6e65.tar.gz") || !strings.HasSuffix(e.URL, e.Path) {
		t.Errorf("URL %s, path %s", e.URL, e.Path)
	}
	got, err := archive.Fetch(t.Context(), http.DefaultTransport, e.URL, e.Digest, archive.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	long := "long/" + strings.Repeat("n", 200)
	if err := fstest.TestFS(got.Tree, "app/a.yaml", "app/empty", "large.bin", "link.yaml", long, ".sourceignore"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"ignored.yaml", "too-large.bin", "linked", "out"} {
		if _, err := got.Tree.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it left out", name, err)
		}
	}
	if data, err := got.Tree.ReadFile("link.yaml"); string(data) != "one" {
		t.Errorf("link.yaml: %q, %v", data, err)
	}
	again := publish(t, s, artifact(t, "one"))
	if again != e {
		t.Errorf("the same files once more: %+v, want %+v", again, e)
	}
}

// The archive of given files is the same for ever: statuses hold its digest.
func TestBytesAreStable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("a: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := artifactserve.Write(t.Context(), &out, open(t, dir, local.Options{}).Tree); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(out.Bytes())
	const want = "389a8c65537f0f2fe21a4fbfa317bf0d17a17ffef6280e59cc3126b5a14d5495"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestHTTP(t *testing.T) {
	s, h := serve(t)
	first := publish(t, s, artifact(t, "one"))
	second := publish(t, s, artifact(t, "two"))
	third := publish(t, s, artifact(t, "three"))
	tests := []struct {
		name, reason, method, url, match string
		code                             int
	}{
		{"latest", "", "GET", third.URL, "", 200},
		{"the one before", "somebody may be about to read it", "GET", second.URL, "", 200},
		{"an old one", "nobody needs it any more", "GET", first.URL, "", 404},
		{"head", "", "HEAD", third.URL, "", 200},
		{"known", "it has not changed", "GET", third.URL, `"` + third.Digest + `"`, 304},
		{"another", "it has changed", "GET", third.URL, `"` + second.Digest + `"`, 200},
		{"another source", "", "GET", strings.Replace(third.URL, "repo/", "other/", 1), "", 404},
		{"folder", "nothing is listed", "GET", h.URL + "/gitrepository/apps/repo/", "", 404},
		{"root", "nothing is listed", "GET", h.URL + "/", "", 404},
		{"path trick", "", "GET", h.URL + "/gitrepository/apps/repo/..%2f..%2fetc", "", 404},
		{"write", "artifacts can only be read", "PUT", third.URL, "", 405},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.match != "" {
				req.Header.Set("If-None-Match", tt.match)
			}
			answer, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != tt.code {
				t.Fatalf("%s: %d, %v, want %d: %s", tt.reason, answer.StatusCode, err, tt.code, body)
			}
			if tt.code != 200 {
				return
			}
			if got := answer.Header.Get("Content-Type"); got != "application/gzip" {
				t.Errorf("type %s", got)
			}
			if tt.method == "GET" && int64(len(body)) != answer.ContentLength || answer.ContentLength <= 0 || answer.Header.Get("ETag") == "" {
				t.Errorf("%d bytes, header %v", len(body), answer.Header)
			}
		})
	}
	s.Withdraw("GitRepository", name)
	if answer, err := http.Get(third.URL); err != nil || answer.StatusCode != http.StatusNotFound { //nolint:bodyclose // it is over
		t.Errorf("after the source has gone: %v, %v", answer, err)
	}
}

// fading is a tree that cannot be read any more.
type fading struct {
	source.Tree
	gone bool
}

func (f *fading) ReadFile(name string) ([]byte, error) {
	if f.gone {
		return nil, &failure.Error{Op: "read", Object: name, Kind: failure.Unavailable, Err: io.ErrUnexpectedEOF}
	}
	return f.Tree.ReadFile(name)
}

// What cannot be sent as a whole is no archive: the transfer fails.
func TestCutShort(t *testing.T) {
	s, _ := serve(t)
	a := artifact(t, "one")
	tree := &fading{Tree: a.Tree}
	a.Tree = tree
	e := publish(t, s, a)
	tree.gone = true
	if _, err := archive.Fetch(t.Context(), http.DefaultTransport, e.URL, e.Digest, archive.Limits{}); err == nil {
		t.Error("half an archive was taken for one")
	}
	a.Digest = "tree:other"
	if _, err := s.Publish(t.Context(), "GitRepository", name, a); !errors.Is(err, failure.Of(failure.Unavailable)) {
		t.Errorf("published what cannot be read: %v", err)
	}
}

func TestListen(t *testing.T) {
	tests := []struct{ name, reason, address, advertise, host string }{
		{"own", "", "127.0.0.1:0", "", "127.0.0.1:"},
		{"unspecified", "as the toolkit has it", ":0", "", "localhost:"},
		{"given", "a Service in front of it", "127.0.0.1:0", "bowline.bowline-system.svc.cluster.local.", "bowline.bowline-system.svc.cluster.local."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, got, err := artifactserve.Listen(t.Context(), tt.address, tt.advertise)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- artifactserve.Serve(ctx, l, http.NotFoundHandler()) }()
			if !strings.HasPrefix(got, tt.host) || strings.HasSuffix(got, ":0") {
				t.Errorf("%s: %s, want %s", tt.reason, got, tt.host)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	if _, _, err := artifactserve.Listen(t.Context(), "nonsense", ""); !errors.Is(err, failure.Of(failure.Unavailable)) {
		t.Errorf("%v", err)
	}
}
