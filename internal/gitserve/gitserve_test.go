package gitserve_test

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// run runs the real git client and returns what it said.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := gitserve.Command(t.Context(), args...)
	cmd.Env = append(cmd.Env, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func git(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

func serve(t *testing.T, opts gitserve.Options) (root, url string, repo *gitserve.Repo) {
	t.Helper()
	root = t.TempDir()
	repo, err := gitserve.Init(t.Context(), root, "team/app.git", "main")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gitserve.Handler(root, opts))
	t.Cleanup(srv.Close)
	return root, srv.URL + "/team/app.git", repo
}

func commit(t *testing.T, repo *gitserve.Repo, files map[string]string) string {
	t.Helper()
	c := gitserve.Commit{Branch: "main", Message: "m", When: time.Unix(1700000000, 0), Files: map[string]gitserve.File{}}
	for k, v := range files {
		c.Files[k] = gitserve.File{Data: []byte(v)}
	}
	sha, err := repo.Commit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

func TestCloneInEveryProtocolVersion(t *testing.T) {
	_, url, repo := serve(t, gitserve.Options{})
	first := commit(t, repo, map[string]string{"a.txt": "one"})
	commit(t, repo, map[string]string{"a.txt": "two", "b/c.txt": "x"})
	for _, version := range []string{"0", "1", "2"} {
		dir := filepath.Join(t.TempDir(), "w")
		git(t, "-c", "protocol.version="+version, "clone", "-q", "--depth", "1", url, dir)
		got, err := os.ReadFile(filepath.Join(dir, "a.txt"))
		if err != nil || string(got) != "two" {
			t.Errorf("version %s: a.txt = %q, %v", version, got, err)
		}
		git(t, "-C", dir, "-c", "protocol.version="+version, "fetch", "-q", "--depth", "1", "origin", first)
		git(t, "-c", "protocol.version="+version, "clone", "-q", "--bare", "--filter=blob:none", url, dir+"-f")
	}
}

func TestPushIsReported(t *testing.T) {
	pushed := make(chan string, 10)
	_, url, repo := serve(t, gitserve.Options{OnPush: func(r string) { pushed <- r }})
	commit(t, repo, map[string]string{"a.txt": "one"})
	dir := filepath.Join(t.TempDir(), "w")
	git(t, "clone", "-q", url, dir)
	// Large enough that the client sends its request in chunks.
	big := bytes.Repeat([]byte("0123456789abcdef\n"), 200_000)
	for i := range big {
		big[i] ^= byte(i * i >> 7)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, "-C", dir, "add", ".")
	git(t, "-C", dir, "commit", "-q", "-m", "big")
	git(t, "-C", dir, "push", "-q")
	if got := <-pushed; got != "team/app.git" {
		t.Errorf("pushed to %q", got)
	}
	sha, err := repo.Resolve(t.Context(), "refs/heads/main")
	if want := strings.TrimSpace(git(t, "-C", dir, "rev-parse", "HEAD")); err != nil || sha != want {
		t.Errorf("main = %s, %v; want %s", sha, err, want)
	}
}

func TestRefused(t *testing.T) {
	root, url, repo := serve(t, gitserve.Options{ReadOnly: true})
	commit(t, repo, map[string]string{"a.txt": "one"})
	if err := os.Symlink("/", filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "w")
	git(t, "clone", "-q", url, dir)
	base := strings.TrimSuffix(url, "/team/app.git")
	for _, tc := range []struct {
		name, reason string
		args         []string
	}{
		{"push", "the handler is read-only", []string{"-C", dir, "push", "-q", "origin", "HEAD:refs/heads/other"}},
		{"unknown", "there is no such repository", []string{"ls-remote", base + "/nothing.git"}},
		{"outside", "a link that leaves the root is not followed", []string{"ls-remote", base + "/out" + repo.Dir}},
		{"dots", "the path is cleaned", []string{"ls-remote", base + "/../.." + repo.Dir}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, err := run(t, tc.args...); err == nil {
				t.Errorf("%s, yet git %v succeeded:\n%s", tc.reason, tc.args, out)
			}
		})
	}
}

func TestCommitDirKeepsModes(t *testing.T) {
	_, url, repo := serve(t, gitserve.Options{})
	commit(t, repo, map[string]string{"old.txt": "gone after the import"})
	src := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(src, "dir", ".git"), 0o700),
		os.WriteFile(filepath.Join(src, "dir", `od"d name`), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(src, "dir", ".git", "config"), nil, 0o600),
		os.WriteFile(filepath.Join(src, "run.sh"), []byte("#!/bin/sh\n"), 0o700),
		os.Symlink("run.sh", filepath.Join(src, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := repo.CommitDir(t.Context(), src, gitserve.Commit{Branch: "main", Message: "import", When: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "w")
	git(t, "clone", "-q", url, dir)
	var got []string
	for line := range strings.Lines(git(t, "-C", dir, "-c", "core.quotePath=false", "ls-files", "-s")) {
		f := strings.Fields(line)
		got = append(got, f[0]+" "+strings.TrimSpace(line[strings.IndexByte(line, '\t')+1:]))
	}
	want := []string{`100644 "dir/od\"d name"`, "120000 link", "100755 run.sh"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("files = %q, want %q", got, want)
	}
}
