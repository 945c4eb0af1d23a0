package verify_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// shelf is a registry with a repository in which artifacts are signed.
type shelf struct {
	t          testing.TB
	repository name.Repository
	asked      *atomic.Int64
	// refuse makes it say that nobody may ask for referrers.
	refuse *atomic.Bool
}

// newShelf starts a registry; referrers says whether it lists what refers to an artifact, as newer ones do, or leaves that to a tag.
func newShelf(t testing.TB, referrers bool) *shelf {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))
	asked, refuse := &atomic.Int64{}, &atomic.Bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if refuse.Load() && strings.Contains(r.URL.Path, "/referrers/") {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/team/app")
	must(t, err)
	return &shelf{t, repository, asked, refuse}
}

// artifact pushes something new that can be signed.
func (s *shelf) artifact() ocitest.Artifact {
	s.t.Helper()
	image, err := random.Image(64, 1)
	must(s.t, err)
	digest, err := image.Digest()
	must(s.t, err)
	must(s.t, remote.Write(s.repository.Digest(digest.String()), image))
	return ocitest.Artifact{Repository: s.repository, Digest: digest}
}

func request(a ocitest.Artifact, trust verify.Trust) verify.Request {
	return verify.Request{Repository: a.Repository, Digest: a.Digest, Trust: trust, Options: a.Options}
}

func newVerifier() *verify.Verifier { return verify.New(verify.Options{Clock: clock.RealClock{}}) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expect compares what a verification came to: with a cause it is refused for that, and the message has the words; else it is
// verified by somebody whose description has them.
func expect(t *testing.T, got verify.Result, err error, cause verify.Cause, words ...string) {
	t.Helper()
	text := got.String()
	if cause != "" {
		var refused *verify.Error
		if !errors.As(err, &refused) {
			t.Fatalf("got %v and %v, want %s", got, err, cause)
		}
		if refused.Cause != cause {
			t.Errorf("refused for %s (%v), want %s", refused.Cause, err, cause)
		}
		text = err.Error()
		if strings.ContainsAny(text, "\n\r") {
			t.Errorf("more than one line: %q", text)
		}
	} else if err != nil {
		t.Fatalf("refused: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

// otherDigest is the digest of nothing in particular.
const otherDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func hash(t testing.TB, digest string) v1.Hash {
	t.Helper()
	h, err := v1.NewHash(digest)
	must(t, err)
	return h
}

// containsSecret reports whether a text has what the tests keep in broken Secrets.
func containsSecret(text string) bool { return strings.Contains(text, "hunter2") }

// entries lists a folder.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	must(t, err)
	var list []string
	for _, e := range found {
		list = append(list, e.Name())
	}
	return list
}
