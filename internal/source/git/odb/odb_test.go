package odb_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
)

// object is what git says about an object.
type object struct {
	typ  string
	data []byte
}

// repository makes a packed repository with long chains of deltas, and returns
// all of its objects as git reads them.
func repository(t *testing.T) (dir string, objects map[string]object) {
	t.Helper()
	r, err := gitserve.Init(t.Context(), t.TempDir(), "r.git", "main")
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, 400)
	for i := range lines {
		lines[i] = fmt.Sprintf("line %d of a file that changes a little each time %x", i, i*i*7919)
	}
	var stream bytes.Buffer
	write := func(name string, data []byte) {
		fmt.Fprintf(&stream, "M 100644 inline %s\ndata %d\n%s\n", name, len(data), data)
	}
	for c := range 60 {
		lines[c*6] = fmt.Sprintf("changed in commit %d", c)
		fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 1\nm\n", c)
		write("file", []byte(strings.Join(lines, "\n")))
		write(fmt.Sprintf("d/%d", c), []byte(strconv.Itoa(c)))
		write("empty", nil)
		write(fmt.Sprintf("e/f/%d", c), bytes.Repeat([]byte{byte(c)}, 7_000))
	}
	cmd := gitserve.Command(t.Context(), "-C", r.Dir, "fast-import", "--quiet")
	cmd.Stdin = &stream
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := r.TagAnnotated(t.Context(), "v1", "main", "text"); err != nil {
		t.Fatal(err)
	}
	if out, err := gitserve.Command(t.Context(), "-C", r.Dir, "repack", "-a", "-d", "-f", "-q", "--depth=60", "--window=20").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := gitserve.Command(t.Context(), "-C", r.Dir, "cat-file", "--batch-all-objects", "--batch").Output()
	if err != nil {
		t.Fatal(err)
	}
	objects = map[string]object{}
	for len(out) > 0 {
		head, rest, _ := bytes.Cut(out, []byte("\n"))
		f := strings.Fields(string(head))
		n, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		objects[f[0]] = object{f[1], rest[:n]}
		out = rest[n+1:]
	}
	return r.Dir, objects
}

func hash(t *testing.T, s string) odb.Hash {
	t.Helper()
	h, err := odb.ParseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestReadsWhatGitReads(t *testing.T) {
	dir, objects := repository(t)
	if len(objects) < 240 {
		t.Fatalf("only %d objects", len(objects))
	}
	// A cache that is too small for anything must change nothing but the time.
	for _, cache := range []int{0, 1 << 12, 1 << 22} {
		db, err := odb.Open(dir, odb.NewCache(cache))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for name, want := range objects {
					h, _ := odb.ParseHash(name)
					typ, data, err := db.Read(h)
					if err != nil || typ.String() != want.typ || !bytes.Equal(data, want.data) {
						t.Errorf("cache %d: %s is %s with %d bytes, %v; want %s with %d", cache, name, typ, len(data), err, want.typ, len(want.data))
					}
					size, err := db.Size(h)
					if err != nil || size != int64(len(want.data)) {
						t.Errorf("cache %d: %s is said to be of %d bytes, %v", cache, name, size, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestNotFound(t *testing.T) {
	dir, _ := repository(t)
	db, err := odb.Open(dir, odb.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	h := hash(t, strings.Repeat("ab", 20))
	if _, _, err := db.Read(h); !errors.Is(err, odb.ErrNotFound) {
		t.Error(err)
	}
	if _, err := db.Size(h); !errors.Is(err, odb.ErrNotFound) || db.Has(h) {
		t.Error(err)
	}
	for _, s := range []string{"", "ab", strings.Repeat("x", 40)} {
		if _, err := odb.ParseHash(s); err == nil {
			t.Errorf("%q was taken for a hash", s)
		}
	}
}

// TestRescan: readers keep what they have while packs are replaced under them.
func TestRescan(t *testing.T) {
	dir, objects := repository(t)
	db, err := odb.Open(dir, odb.NewCache(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := gitserve.Command(t.Context(), "-C", dir, "repack", "-a", "-d", "-f", "-q", "--depth=3").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check := func() {
		t.Helper()
		for name, want := range objects {
			if _, data, err := db.Read(hash(t, name)); err != nil || !bytes.Equal(data, want.data) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	check()
	if err := db.Rescan(); err != nil {
		t.Fatal(err)
	}
	check()
	if n, size := db.Packs(); n != 1 || size == 0 {
		t.Errorf("%d packs of %d bytes", n, size)
	}
}

// TestDamage turns bytes of the pack at random: each read gives the right
// content or an error, never anything else.
func TestDamage(t *testing.T) {
	dir, objects := repository(t)
	names, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.pack"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	good, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(names[0], 0o600); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	broken := 0
	for range 8 {
		bad := bytes.Clone(good)
		for range 40 {
			bad[12+rnd.IntN(len(bad)-32)] = byte(rnd.Uint32())
		}
		if err := os.WriteFile(names[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := odb.Open(dir, odb.NewCache(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range objects {
			_, data, err := db.Read(hash(t, name))
			if err != nil {
				broken++
				if !errors.Is(err, odb.ErrCorrupt) {
					t.Fatalf("%s: %v", name, err)
				}
			} else if !bytes.Equal(data, want.data) {
				t.Fatalf("%s was read wrong without an error", name)
			}
			_, _ = db.Size(hash(t, name)) // must not panic
		}
	}
	if broken == 0 {
		t.Error("no read failed; the damage has done nothing")
	}
}

func TestRemoveLeftovers(t *testing.T) {
	dir, _ := repository(t)
	left := filepath.Join(dir, "objects", "pack", "tmp_pack_abc")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := odb.RemoveLeftovers(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("the leftover is still there")
	}
	if _, err := odb.Open(dir, odb.NewCache(0)); err != nil {
		t.Error(err)
	}
}
