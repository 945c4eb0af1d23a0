package git_test

import (
	"errors"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// What was fetched is there for the next process, without the server.
func TestRecall(t *testing.T) {
	srv := testkit.NewGitServer(t)
	repo := srv.Repo("fleet")
	repo.Commit(map[string]string{"a": "1"})
	dir := t.TempDir()
	first, err := git.New(git.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	req := git.Request{URL: repo.URL(), Ref: main, For: "ours"}
	fetched := mustFetch(t, first, req)
	first.Close()
	srv.Stop()

	second := newStore(t, git.Options{DataDir: dir})
	for _, tc := range []struct {
		name, reason string
		url          string
		whom         string
		revision     string
		found        bool
	}{
		{"known", "it is on disk", repo.URL(), "ours", fetched.Revision, true},
		{"other commit", "nobody fetched it", repo.URL(), "ours", "main@sha1:0123456789012345678901234567890123456789", false},
		{"other repository", "its objects are its own", srv.URL() + "/other.git", "ours", fetched.Revision, false},
		{"no revision", "the status may hold anything", repo.URL(), "ours", "main", false},
		{"somebody else", "the remote has not said that they may read it", repo.URL(), "theirs", fetched.Revision, false},
		{"nobody", "the remote has not said that they may read it", repo.URL(), "", fetched.Revision, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := second.Recall(t.Context(), git.Request{URL: tc.url, For: tc.whom}, tc.revision)
			if tc.found != (err == nil) || err != nil && !errors.Is(err, failure.Of(failure.NotFound)) {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if !tc.found {
				return
			}
			if got.Revision != fetched.Revision || got.Digest != fetched.Digest {
				t.Errorf("got %s %s, fetched was %s %s", got.Revision, got.Digest, fetched.Revision, fetched.Digest)
			}
			wantFile(t, got.Tree, "a", "1")
		})
	}
}
