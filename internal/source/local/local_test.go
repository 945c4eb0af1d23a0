package local_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/local"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, dir string, opts local.Options) *local.Tree {
	t.Helper()
	tree, err := local.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree
}

func TestFolder(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "repo")
	write(t, outer, map[string]string{"secret": "outside"})
	write(t, dir, map[string]string{"a.yaml": "a", "d/b.yaml": "b", ".git/config": "x", "logo.png": "x", "big": "12345678901"})
	for link, to := range map[string]string{
		"ok": "d/b.yaml", "up": "../secret", "absolute": filepath.Join(outer, "secret"), "circle": "circle", "d/dir": "../d",
	} {
		if err := os.Symlink(to, filepath.Join(dir, filepath.FromSlash(link))); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := open(t, dir, local.Options{MaxFileSize: 10})
	for name, want := range map[string]string{"a.yaml": "a", "ok": "b", "d/dir/b.yaml": "b"} {
		if got, err := tree.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
	for _, tc := range []struct {
		name, reason string
		want         error
	}{
		{"up", "leads out", failure.Of(failure.Invalid)},
		{"absolute", "leads out", failure.Of(failure.Invalid)},
		{"circle", "leads nowhere", failure.Of(failure.Invalid)},
		{"big", "is larger than the limit", failure.Of(failure.Invalid)},
		{".git/config", "is not content", fs.ErrNotExist},
		{"logo.png", "is left out by default", fs.ErrNotExist},
		{"pipe", "is no file", fs.ErrNotExist},
		{"a.yaml/x", "a file has nothing below it", fs.ErrNotExist},
		{"../secret", "is no name of io/fs", fs.ErrInvalid},
	} {
		if _, err := tree.ReadFile(tc.name); !errors.Is(err, tc.want) {
			t.Errorf("%s, which %s: %v", tc.name, tc.reason, err)
		}
	}
}

func TestFolderAsFS(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "a", "d/b.yaml": "b", "d/e/c.yaml": "c"})
	if err := fstest.TestFS(open(t, dir, local.Options{}), "a.yaml", "d/b.yaml", "d/e/c.yaml"); err != nil {
		t.Error(err)
	}
}

func TestHashAndDigest(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.yaml": "a", "d/b.yaml": "b", "logo.png": "1"})
	hashes := func() (file, folder, digest string) {
		tree := open(t, dir, local.Options{})
		file, err1 := tree.Hash("d/b.yaml")
		folder, err2 := tree.Hash("d")
		a, err3 := tree.Artifact()
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		return file, folder, a.Digest
	}
	file, folder, digest := hashes()
	write(t, dir, map[string]string{"logo.png": "2"})
	if f, d, all := hashes(); f != file || d != folder || all != digest {
		t.Error("a file that is left out changed a hash")
	}
	write(t, dir, map[string]string{"d/b.yaml": "B"})
	if f, d, all := hashes(); f == file || d != folder || all == digest {
		t.Error("a changed file must change its hash and the digest, and not that of its folder")
	}
	write(t, dir, map[string]string{"d/c.yaml": "c"})
	if _, d, _ := hashes(); d == folder {
		t.Error("a new file must change the hash of its folder")
	}
}

func TestNoFolder(t *testing.T) {
	_, err := local.Open(filepath.Join(t.TempDir(), "nothing"), local.Options{})
	if !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Error(err)
	}
}
