package git_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// gitmodules writes .gitmodules: path and URL in turn.
func gitmodules(pairs ...string) gitserve.File {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "[submodule %q]\n\tpath = %s\n\turl = %s\n", pairs[i], pairs[i], pairs[i+1])
	}
	return gitserve.File{Data: []byte(b.String())}
}

func gitlink(commit string) gitserve.File { return gitserve.File{Data: []byte(commit), Mode: "160000"} }

// Submodules are where they belong, at the commits that are recorded, also
// below one another; a remote where nothing moved is asked once.
func TestSubmodules(t *testing.T) {
	srv := testkit.NewGitServer(t, testkit.GitBasicAuth("user", "password"))
	other := testkit.NewGitServer(t)
	deep := srv.Repo("deep").Commit(map[string]string{"deep.txt": "deep"})
	lib := srv.Repo("lib").CommitFiles(map[string]gitserve.File{
		"lib.txt": {Data: []byte("lib")}, "hidden": {Data: []byte("x")}, ".sourceignore": {Data: []byte("hidden\n")},
		"vendor/deep": gitlink(deep), ".gitmodules": gitmodules("vendor/deep", "./../deep.git"),
	})
	foreign := other.Repo("foreign").Commit(map[string]string{"foreign.txt": "foreign"})
	app := srv.Repo("app")
	files := map[string]gitserve.File{
		"app.txt": {Data: []byte("app")}, "mods/lib": gitlink(lib), "again": gitlink(deep), "foreign": gitlink(foreign), "unnamed": gitlink(lib),
		".gitmodules": gitmodules("mods/lib", "../lib.git", "again", srv.URL()+"/deep.git", "foreign", other.URL()+"/foreign.git", "gone", "../gone.git"),
	}
	app.CommitFiles(files)
	data := t.TempDir()
	s := newStore(t, git.Options{DataDir: data})
	req := git.Request{URL: app.URL(), Ref: main, Auth: git.Auth{Username: "user", Password: "password"}, Submodules: true, For: "ours"}
	first := mustFetch(t, s, req)
	const want = "again/deep.txt app.txt foreign/foreign.txt mods/lib/.sourceignore mods/lib/lib.txt mods/lib/vendor/deep/deep.txt"
	if got := walk(t, first.Tree); got != want {
		t.Errorf("shows %s, want %s", got, want)
	}
	wantFile(t, first.Tree, "mods/lib/vendor/deep/deep.txt", "deep")
	for _, r := range other.Requests() {
		if r.Authorization != "" {
			t.Errorf("another server got the credentials %q", r.Authorization)
		}
	}
	asked, askedOther := len(srv.Requests()), len(other.Requests())
	for range 3 {
		if again := mustFetch(t, s, req); again.Digest != first.Digest || again.Tree != first.Tree {
			t.Errorf("nothing moved, and it is another tree")
		}
	}
	if n, m := len(srv.Requests())-asked, len(other.Requests())-askedOther; n != 3 || m != 0 {
		t.Errorf("three looks where nothing moved took %d requests, and %d to the other server", n, m)
	}
	without := req
	without.Submodules = false
	if got := walk(t, mustFetch(t, s, without).Tree); got != "app.txt" {
		t.Errorf("without submodules it shows %s", got)
	}
	sparse := req
	sparse.Sparse = []string{"mods/lib/vendor", "again"}
	if got := walk(t, mustFetch(t, s, sparse).Tree); got != "again/deep.txt mods/lib/vendor/deep/deep.txt" {
		t.Errorf("with a part of it wanted it shows %s", got)
	}

	files["mods/lib"] = gitlink(srv.Repo("lib").Commit(map[string]string{"lib.txt": "new"}))
	app.CommitFiles(files)
	second := mustFetch(t, s, req)
	wantFile(t, second.Tree, "mods/lib/lib.txt", "new")
	wantFile(t, first.Tree, "mods/lib/lib.txt", "lib")
	if second.Digest == first.Digest {
		t.Errorf("the digest does not tell of a submodule that moved")
	}
	s.Close()
	asked, askedOther = len(srv.Requests()), len(other.Requests())
	recalled, err := newStore(t, git.Options{DataDir: data}).Recall(t.Context(), req, second.Revision)
	if err != nil || recalled.Digest != second.Digest {
		t.Fatalf("recalled %s, %v; want %s", recalled.Digest, err, second.Digest)
	}
	wantFile(t, recalled.Tree, "mods/lib/vendor/deep/deep.txt", "deep")
	if n := len(srv.Requests()) + len(other.Requests()) - asked - askedOther; n != 0 {
		t.Errorf("what is on disk was asked for with %d requests", n)
	}
	theirs := newStore(t, git.Options{DataDir: data})
	theirReq := without
	theirReq.For = "theirs"
	mustFetch(t, theirs, theirReq)
	theirReq.Submodules = true
	if _, err := theirs.Recall(t.Context(), theirReq, second.Revision); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Errorf("recalled a submodule that nobody found them good for: %v", err)
	}
}

// A submodule of a repository that somebody else may read is not for those who may not.
func TestSubmodulesOfOthers(t *testing.T) {
	public, private := testkit.NewGitServer(t), testkit.NewGitServer(t, testkit.GitBasicAuth("user", "password"))
	secret := private.Repo("secret")
	commit := secret.Commit(map[string]string{"f": "x"})
	app := public.Repo("app")
	app.CommitFiles(map[string]gitserve.File{"m": gitlink(commit), ".gitmodules": gitmodules("m", secret.URL())})
	s := newStore(t, git.Options{})
	mustFetch(t, s, git.Request{URL: secret.URL(), Ref: main, Auth: git.Auth{Username: "user", Password: "password"}})
	err := fetchError(t, s, git.Request{URL: app.URL(), Ref: main, Submodules: true, Auth: git.Auth{Username: "user", Password: "password"}})
	wantError(t, err, failure.Denied, "submodule m", secret.URL(), "spec.include")
	for _, r := range private.Requests()[2:] {
		if r.Authorization != "" {
			t.Errorf("the private server got credentials that are not for it")
		}
	}
}

func TestSubmoduleMistakes(t *testing.T) {
	srv := testkit.NewGitServer(t)
	lib := srv.Repo("lib").Commit(map[string]string{"f": "x"})
	for i := range 12 {
		r := srv.Repo(fmt.Sprint("chain", i))
		files := map[string]gitserve.File{"f": {Data: []byte("x")}}
		if i > 0 {
			files["next"] = gitlink(lib)
			files[".gitmodules"] = gitmodules("next", fmt.Sprintf("../chain%d.git", i-1))
		}
		lib2 := r.CommitFiles(files)
		lib = lib2
	}
	const nowhere = "1234567890123456789012345678901234567890"
	for _, tc := range []struct {
		name, reason string
		url, path    string
		commit       string
		kind         failure.Kind
		words        []string
	}{
		{name: "missing-commit", reason: "nobody pushed it", url: "../lib.git", commit: nowhere, kind: failure.NotFound, words: []string{"submodule m", nowhere, "push the commit"}},
		{name: "missing-repository", reason: "there is none", url: "../nothing.git", commit: nowhere, kind: failure.NotFound, words: []string{"submodule m", "/nothing.git", ".gitmodules"}},
		{name: "unreachable", reason: "nobody answers", url: "http://127.0.0.1:1/x.git", commit: nowhere, kind: failure.Unavailable, words: []string{"submodule m", "127.0.0.1:1"}},
		{name: "file", reason: "nothing of this machine", url: "file:///etc", commit: nowhere, kind: failure.Invalid, words: []string{"path on this machine"}},
		{name: "path", reason: "nothing of this machine", url: "/etc/git", commit: nowhere, kind: failure.Invalid, words: []string{"path on this machine"}},
		{name: "ext", reason: "no commands", url: "ext::sh -c id", commit: nowhere, kind: failure.Invalid, words: []string{"submodule m", "url"}},
		{name: "git-protocol", reason: "it is not safe", url: "git://example.com/x.git", commit: nowhere, kind: failure.Invalid, words: []string{`"git"`, "https"}},
		{name: "up", reason: "past the root of the server", url: "../../../x.git", commit: nowhere, kind: failure.Invalid, words: []string{"leads out of the server"}},
		{name: "ssh", reason: "there is no key for that server", url: "git@example.com:a/b.git", commit: nowhere, kind: failure.Invalid, words: []string{"private key", "spec.include"}},
		{name: "outside", reason: "a path out of the repository", url: "../lib.git", path: "../m", commit: nowhere, kind: failure.Invalid, words: []string{".gitmodules"}},
		{name: "too-deep", reason: "one in the other, twelve times", url: "../chain11.git", commit: lib, kind: failure.Invalid, words: []string{"nested", "next/next"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := srv.Repo(tc.name)
			if tc.path == "" {
				tc.path = "m"
			}
			r.CommitFiles(map[string]gitserve.File{"m": gitlink(tc.commit), ".gitmodules": gitmodules(tc.path, tc.url)})
			wantError(t, fetchError(t, newStore(t, git.Options{}), git.Request{URL: r.URL(), Ref: main, Submodules: true}), tc.kind, tc.words...)
		})
	}
	t.Run("link", func(t *testing.T) {
		r := srv.Repo("link")
		r.CommitFiles(map[string]gitserve.File{"m": gitlink(nowhere), ".gitmodules": {Data: []byte("m"), Mode: "120000"}})
		wantError(t, fetchError(t, newStore(t, git.Options{}), git.Request{URL: r.URL(), Ref: main, Submodules: true}), failure.Invalid, ".gitmodules", "regular file")
	})
}

// Mirrors hold for submodules, and what is relative is so to the URL, not to the mirror.
func TestSubmodulesOfMirrors(t *testing.T) {
	srv := testkit.NewGitServer(t)
	commit := srv.Repo("lib").Commit(map[string]string{"f": "x"})
	srv.Repo("app").CommitFiles(map[string]gitserve.File{"m": gitlink(commit), ".gitmodules": gitmodules("m", "../lib")})
	s := newStore(t, git.Options{Mirrors: []reach.Mirror{
		{From: "https://git.example.com/org/app", To: srv.URL() + "/app.git"}, {From: "https://git.example.com/org/lib", To: srv.URL() + "/lib.git"},
	}})
	wantFile(t, mustFetch(t, s, git.Request{URL: "https://git.example.com/org/app", Ref: main, Submodules: true}).Tree, "m/f", "x")
}
