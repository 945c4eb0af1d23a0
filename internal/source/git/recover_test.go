package git_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// packs returns the packs in a data folder that holds one repository.
func packs(t *testing.T, data string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(data, "*.git", "objects", "pack", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDamagedDataFolder(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": strings.Repeat("one\n", 100), "d/b": "b"})
	one := func(t *testing.T, data, pattern string) string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(data, "*.git", pattern))
		if err != nil || len(names) != 1 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		// git writes packs without permission to write.
		if err := os.Chmod(names[0], 0o600); err != nil {
			t.Fatal(err)
		}
		return names[0]
	}
	for _, tc := range []struct {
		name, reason string
		damage       func(t *testing.T, data string) error
	}{
		{"pack cut short", "the machine went down", func(t *testing.T, data string) error {
			return os.Truncate(one(t, data, "objects/pack/*.pack"), 30)
		}},
		{"index empty", "", func(t *testing.T, data string) error { return os.Truncate(one(t, data, "objects/pack/*.idx"), 0) }},
		{"pack gone", "somebody tidied up", func(t *testing.T, data string) error { return os.Remove(one(t, data, "objects/pack/*.pack")) }},
		{"both gone", "the commits are known but not there", func(t *testing.T, data string) error {
			if err := os.Remove(one(t, data, "objects/pack/*.idx")); err != nil {
				return err
			}
			return os.Remove(one(t, data, "objects/pack/*.pack"))
		}},
		{"references unreadable", "", func(t *testing.T, data string) error {
			return os.WriteFile(one(t, data, "packed-refs"), []byte("\x00\x00\x00"), 0o600)
		}},
		{"leftovers of a killed git", "", func(t *testing.T, data string) error {
			dir := filepath.Dir(one(t, data, "HEAD"))
			return os.WriteFile(filepath.Join(dir, "objects", "pack", "tmp_pack_x"), []byte("PACK"), 0o600)
		}},
		{"repository half made", "killed at the very beginning", func(t *testing.T, data string) error { return os.Remove(one(t, data, "HEAD")) }},
		{"objects folder gone", "", func(t *testing.T, data string) error {
			return os.RemoveAll(filepath.Join(filepath.Dir(one(t, data, "HEAD")), "objects"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := t.TempDir()
			req := git.Request{URL: r.URL(), Ref: main}
			before := newStore(t, git.Options{DataDir: data})
			mustFetch(t, before, req)
			before.Close()
			if err := tc.damage(t, data); err != nil {
				t.Fatal(err)
			}
			a := mustFetch(t, newStore(t, git.Options{DataDir: data}), req)
			wantFile(t, a.Tree, "a", strings.Repeat("one\n", 100))
			wantFile(t, a.Tree, "d/b", "b")
			if left, _ := filepath.Glob(filepath.Join(data, "*.git", "objects", "pack", "tmp_*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

func TestBitRot(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": strings.Repeat("one two three\n", 1000)})
	data := t.TempDir()
	s := newStore(t, git.Options{DataDir: data})
	req := git.Request{URL: r.URL(), Ref: main}
	a := mustFetch(t, s, req)
	name := packs(t, data)[0]
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 12; i < len(content)-20; i++ {
		content[i] ^= 0x55
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = a.Tree.ReadFile("a")
	wantError(t, err, failure.Unavailable, r.URL())
	wantFile(t, mustFetch(t, s, req).Tree, "a", strings.Repeat("one two three\n", 1000))
}

func TestRestartFetchesNothing(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": "1"})
	data := t.TempDir()
	req := git.Request{URL: r.URL(), Ref: main}
	s := newStore(t, git.Options{DataDir: data})
	before := mustFetch(t, s, req)
	s.Close()
	fetches := srv.Fetches()
	after := mustFetch(t, newStore(t, git.Options{DataDir: data}), req)
	if srv.Fetches() != fetches || before.Digest != after.Digest {
		t.Errorf("a restart cost %d fetches; digest %s became %s", srv.Fetches()-fetches, before.Digest, after.Digest)
	}
}

func TestOldObjectsGo(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	filler := make([]byte, 4096)
	src := rand.NewChaCha8([32]byte{1})
	noise := func() string { _, _ = src.Read(filler); return string(filler) }
	r.Commit(map[string]string{"base": noise()})
	data := t.TempDir()
	s := newStore(t, git.Options{DataDir: data})
	req := git.Request{URL: r.URL(), Ref: main}
	held := mustFetch(t, s, req)
	want, err := held.Tree.ReadFile("base")
	if err != nil {
		t.Fatal(err)
	}
	var last string
	for range 70 {
		last = noise()
		r.Commit(map[string]string{"base": last})
		mustFetch(t, s, req)
	}
	names := packs(t, data)
	if len(names) > 32 {
		t.Errorf("%d packs", len(names))
	}
	var size int64
	for _, n := range names {
		if fi, err := os.Stat(n); err == nil {
			size += fi.Size()
		}
	}
	if size > 50*4096 {
		t.Errorf("%d bytes are kept of 70 revisions with 4096 new bytes each", size)
	}
	wantFile(t, held.Tree, "base", string(want))
	wantFile(t, mustFetch(t, s, req).Tree, "base", last)
}

// TestKilledFetcher is the process that TestKillNine kills.
func TestKilledFetcher(t *testing.T) {
	url, data := os.Getenv("BOWLINE_TEST_URL"), os.Getenv("BOWLINE_TEST_DATA")
	if url == "" {
		t.Skip("run by TestKillNine")
	}
	fmt.Println("ready")
	s, err := git.New(git.Options{DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	for {
		a, err := s.Fetch(context.Background(), git.Request{URL: url, Ref: main})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Tree.ReadFile("big"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKillNine(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	data := t.TempDir()
	src := rand.NewChaCha8([32]byte{2})
	big := make([]byte, 256<<10)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		_, _ = src.Read(big)
		r.Commit(map[string]string{"big": string(big), "n": fmt.Sprint(i)})
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestKilledFetcher$")
		cmd.Env = append(os.Environ(), "BOWLINE_TEST_URL="+r.URL(), "BOWLINE_TEST_DATA="+data)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !bufio.NewScanner(out).Scan() {
			t.Fatal("the fetcher has not started")
		}
		time.Sleep(time.Duration(i*i) * 2 * time.Millisecond) //nolint:forbidigo // waits for nothing: the moment of death is what varies
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s, err := git.New(git.Options{DataDir: data})
		if err != nil {
			t.Fatal(err)
		}
		a := mustFetch(t, s, git.Request{URL: r.URL(), Ref: main})
		wantFile(t, a.Tree, "n", fmt.Sprint(i))
		if got, err := a.Tree.ReadFile("big"); err != nil || !bytes.Equal(got, big) {
			t.Errorf("kill %d: big has %d bytes, %v", i, len(got), err)
		}
		s.Close()
	}
}

func TestUnusedRepositoriesGo(t *testing.T) {
	srv := testkit.NewGitServer(t)
	data := t.TempDir()
	day := func(n int) func() time.Time {
		return func() time.Time { return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n) }
	}
	at := func(n int, names ...string) {
		t.Helper()
		s := newStore(t, git.Options{DataDir: data, Now: day(n)})
		for _, name := range names {
			r := srv.Repo(name)
			if n == 0 {
				r.Commit(map[string]string{"a": "1"})
			}
			mustFetch(t, s, git.Request{URL: r.URL(), Ref: main})
		}
		s.Close()
	}
	at(0, "used", "unused")
	at(20, "used")
	at(40)
	if left, _ := filepath.Glob(filepath.Join(data, "*.git")); len(left) != 1 {
		t.Errorf("%d repositories are left, want the one that was used 20 days ago", len(left))
	}
}
