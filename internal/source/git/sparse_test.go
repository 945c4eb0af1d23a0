package git_test

import (
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestSparseCheckout(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{
		"README": "x", "a/f": "1", "a/b/g": "2", "a/.sourceignore": "h\n", "a/h": "3", "ab/f": "4", "c/d/e/f": "5", "c/x": "6",
		".sourceignore": "g\n",
	})
	s := newStore(t, git.Options{})
	request := func(dirs ...string) git.Request { return git.Request{URL: r.URL(), Ref: main, Sparse: dirs} }
	for _, tc := range []struct {
		name, reason, want string
		dirs               []string
	}{
		{"one", "its ignore files hold, those outside are not there", "a/.sourceignore a/b/g a/f", []string{"a"}},
		{"spelling", "however it is written", "a/.sourceignore a/b/g a/f", []string{"./a/"}},
		{"deep", "the folders on the way show nothing else", "c/d/e/f", []string{"c/d"}},
		{"two", "in any order", "a/b/g c/d/e/f", []string{"c/d/e", "a/b"}},
		{"nested", "one in the other", "a/.sourceignore a/b/g a/f", []string{"a/b", "a"}},
		{"file", "a file may be listed too", "README", []string{"README"}},
		{"root", "everything", ".sourceignore README a/.sourceignore a/f ab/f c/d/e/f c/x", []string{"./"}},
		{"none", "everything", ".sourceignore README a/.sourceignore a/f ab/f c/d/e/f c/x", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := walk(t, mustFetch(t, s, request(tc.dirs...)).Tree); got != tc.want {
				t.Errorf("%s: shows %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
	wantError(t, fetchError(t, s, request("a", "./nothing/")), failure.NotFound, "sparse checkout dir './nothing/' does not exist in repository", "spec.sparseCheckout")
	wantError(t, fetchError(t, s, request("README/x")), failure.NotFound, "README/x")
	wantError(t, fetchError(t, s, request("../a")), failure.Invalid, "'../a'", "leads out")

	first := mustFetch(t, s, request("a"))
	r.Commit(map[string]string{"c/x": "changed"})
	second := mustFetch(t, s, request("a"))
	if first.Digest != second.Digest || first.Revision == second.Revision {
		t.Errorf("a commit elsewhere: %s %s, then %s %s", first.Revision, first.Digest, second.Revision, second.Digest)
	}
	if all := mustFetch(t, s, request()); all.Digest == second.Digest {
		t.Errorf("the whole has the digest of a part")
	}
	if n := srv.Fetches(); n != 2 {
		t.Errorf("%d fetches for two commits", n)
	}
}
