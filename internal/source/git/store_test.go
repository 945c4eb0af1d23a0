package git_test

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func newStore(t *testing.T, opts git.Options) *git.Store {
	t.Helper()
	if opts.DataDir == "" {
		opts.DataDir = t.TempDir()
	}
	s, err := git.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func mustFetch(t *testing.T, s *git.Store, req git.Request) source.Artifact {
	t.Helper()
	a, err := s.Fetch(t.Context(), req)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	return a
}

func wantFile(t *testing.T, tree source.Tree, name, want string) {
	t.Helper()
	got, err := tree.ReadFile(name)
	if err != nil || string(got) != want {
		t.Errorf("%s = %q, %v; want %q", name, got, err, want)
	}
}

var main = git.Ref{Branch: "main"}

func TestFetchFollowsABranch(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	one := r.Commit(map[string]string{"a.yaml": "1", "d/b.yaml": "b", "d/e/f.yaml": "f"})
	s := newStore(t, git.Options{})
	req := git.Request{URL: r.URL(), Ref: main}
	first := mustFetch(t, s, req)
	if want := "main@sha1:" + one; first.Revision != want {
		t.Errorf("revision = %s, want %s", first.Revision, want)
	}
	if err := fstest.TestFS(first.Tree, "a.yaml", "d/b.yaml", "d/e/f.yaml"); err != nil {
		t.Error(err)
	}
	before := len(srv.Requests())
	again := mustFetch(t, s, req)
	if n := len(srv.Requests()) - before; n != 1 || again.Revision != first.Revision || again.Digest != first.Digest {
		t.Errorf("an unchanged branch cost %d requests, want 1 (%+v)", n, again)
	}
	two := r.Commit(map[string]string{"a.yaml": "2"})
	second := mustFetch(t, s, req)
	if second.Revision != "main@sha1:"+two || second.Digest == first.Digest {
		t.Errorf("second = %+v", second)
	}
	wantFile(t, second.Tree, "a.yaml", "2")
	wantFile(t, second.Tree, "d/e/f.yaml", "f")
	wantFile(t, first.Tree, "a.yaml", "1")
	r.ForcePush(map[string]string{"only.yaml": "new"})
	third := mustFetch(t, s, req)
	wantFile(t, third.Tree, "only.yaml", "new")
	if _, err := third.Tree.Stat("a.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a.yaml survived a rewrite: %v", err)
	}
}

func TestReferences(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	c := make([]string, 6)
	for i := range c {
		c[i] = r.Commit(map[string]string{"n": strings.Repeat("x", i+1)})
	}
	r.Branch("master", c[0])
	r.Branch("feature/x", c[1])
	r.Tag("v1.0.0", c[1])
	r.TagAnnotated("v1.2.0", c[2])
	r.Tag("v2.0.0-rc.1", c[3])
	r.Tag("1.10.0+b2", c[3])
	r.Tag("1.10.0+b1", c[4])
	r.SetRef("refs/pull/7/head", c[2])
	unreachable := r.On("gone").Commit(map[string]string{"n": "pinned"})
	for _, tc := range []struct {
		name, reason string
		ref          git.Ref
		want         string
	}{
		{"default", "master is the default, as in the API", git.Ref{}, "master@sha1:" + c[0]},
		{"branch", "a slash in a branch stays", git.Ref{Branch: "feature/x"}, "feature/x@sha1:" + c[1]},
		{"tag", "goes before branch", git.Ref{Branch: "main", Tag: "v1.0.0"}, "v1.0.0@sha1:" + c[1]},
		{"annotated", "the revision is the commit, not the tag object", git.Ref{Tag: "v1.2.0"}, "v1.2.0@sha1:" + c[2]},
		{"semver", "goes before tag; of equal versions the one committed last; no pre-releases", git.Ref{Tag: "v1.0.0", SemVer: ">=1.0.0"}, "1.10.0+b1@sha1:" + c[4]},
		{"tilde", "ranges as Helm and Flux know them", git.Ref{SemVer: "~1.2"}, "v1.2.0@sha1:" + c[2]},
		{"prerelease", "a range with a pre-release takes them", git.Ref{SemVer: ">=2.0.0-0"}, "v2.0.0-rc.1@sha1:" + c[3]},
		{"name", "goes before semver and stays in full", git.Ref{SemVer: "*", Name: "refs/pull/7/head"}, "refs/pull/7/head@sha1:" + c[2]},
		{"name of branch", "in full too", git.Ref{Name: "refs/heads/main"}, "refs/heads/main@sha1:" + c[5]},
		{"commit", "goes before all", git.Ref{Name: "refs/pull/7/head", Commit: c[3]}, "sha1:" + c[3]},
		{"commit on branch", "the branch is part of the revision", git.Ref{Branch: "main", Commit: c[2]}, "main@sha1:" + c[2]},
		{"other commit", "any commit that the server gives out", git.Ref{Commit: unreachable}, "sha1:" + unreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, git.Options{})
			a := mustFetch(t, s, git.Request{URL: r.URL(), Ref: tc.ref})
			if a.Revision != tc.want {
				t.Errorf("%s: revision = %s, want %s", tc.reason, a.Revision, tc.want)
			}
			if _, err := a.Tree.ReadFile("n"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOneFetchForMany(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": "1"})
	r.Branch("dev", r.Commit(map[string]string{"a": "2"}))
	s := newStore(t, git.Options{})
	var wg sync.WaitGroup
	for i := range 100 {
		ref := main
		if i%2 == 0 {
			ref = git.Ref{Branch: "dev"}
		}
		wg.Go(func() {
			if _, err := s.Fetch(t.Context(), git.Request{URL: r.URL(), Ref: ref}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := srv.Fetches(); n > 2 {
		t.Errorf("%d fetches for a hundred requests, want at most 2: one under way, one for all who came meanwhile", n)
	}
	if n := len(srv.Requests()); n > 12 {
		t.Errorf("%d requests in all", n)
	}
}

func TestBigFile(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	big := make([]byte, 100<<20)
	for i := range 4096 {
		big[i] = byte(i * i) // not all zeros, yet quick to pack
	}
	r.CommitFiles(map[string]gitserve.File{"big.bin": {Data: big}, "a.yaml": {Data: []byte("a")}})
	s := newStore(t, git.Options{})
	a := mustFetch(t, s, git.Request{URL: r.URL(), Ref: main})
	wantFile(t, a.Tree, "a.yaml", "a")
	if fi, err := a.Tree.Stat("big.bin"); err != nil || fi.Size() != 100<<20 {
		t.Errorf("stat: %v, %v", fi, err)
	}
	_, err := a.Tree.ReadFile("big.bin")
	if !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Fatalf("error = %v, want kind Invalid", err)
	}
	for _, part := range []string{"big.bin", "104857600", "10 MiB"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

// wantError checks the kind of an error, that it is one line, and what it names.
func wantError(t *testing.T, err error, kind failure.Kind, parts ...string) {
	t.Helper()
	if failure.KindOf(err) != kind {
		t.Fatalf("kind = %q, want %q: %v", failure.KindOf(err), kind, err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not name %q", err, p)
		}
	}
	t.Log(err)
}

func TestTimeoutOfAHangingServer(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": "1"})
	srv.Hang(true)
	s := newStore(t, git.Options{})
	_, err := s.Fetch(t.Context(), git.Request{URL: r.URL(), Ref: main, Timeout: 50 * time.Millisecond})
	wantError(t, err, failure.Timeout, r.URL(), "50ms", "spec.timeout")
	srv.Hang(false)
	mustFetch(t, s, git.Request{URL: r.URL(), Ref: main})
}

// TestPinnedCommits: each is asked for on its own, over every kind of conversation.
func TestPinnedCommits(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		opts         []testkit.GitOption
		ssh          bool
	}{
		{"http", "", nil, false},
		{"http, tips only", "the whole history is looked through", []testkit.GitOption{testkit.GitTipsOnly()}, false},
		{"ssh", "one pack for each connection", []testkit.GitOption{testkit.GitSSH()}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := testkit.NewGitServer(t, tc.opts...)
			r := srv.Repo("app")
			one := r.Commit(map[string]string{"a": "1"})
			two := r.Commit(map[string]string{"a": "2"})
			r.Commit(map[string]string{"a": "3"})
			req := git.Request{URL: r.URL()}
			if tc.ssh {
				var err error
				req.URL = r.SSHURL()
				if req.Auth, err = git.AuthFromSecret(req.URL, map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": srv.SSHKnownHosts()}); err != nil {
					t.Fatal(err)
				}
			}
			s := newStore(t, git.Options{})
			// A hanging listing would be needed to be sure that they share a flight; most do.
			var wg sync.WaitGroup
			for ref, want := range map[git.Ref]string{main: "3", {Commit: one}: "1", {Commit: two}: "2", {Branch: "main", Commit: one}: "1"} {
				wg.Go(func() {
					req := req
					req.Ref = ref
					a, err := s.Fetch(t.Context(), req)
					if err != nil {
						t.Error(err)
						return
					}
					wantFile(t, a.Tree, "a", want)
				})
			}
			wg.Wait()
			req.Ref = git.Ref{Commit: strings.Repeat("ab", 20)}
			wantError(t, fetchError(t, s, req), failure.NotFound, "commit abab")
		})
	}
}
