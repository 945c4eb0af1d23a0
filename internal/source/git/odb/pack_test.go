package odb

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// TestIdle: an index is in memory while somebody reads, and not for much longer.
func TestIdle(t *testing.T) {
	r, err := gitserve.Init(t.Context(), t.TempDir(), "r.git", "main")
	if err != nil {
		t.Fatal(err)
	}
	sha, err := r.Commit(t.Context(), gitserve.Commit{Branch: "main", Message: "m", Files: map[string]gitserve.File{"a": {Data: []byte("1")}}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := gitserve.Command(t.Context(), "-C", r.Dir, "repack", "-a", "-d", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h, err := ParseHash(sha)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		wait := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		db, err := Open(r.Dir, NewCache(0))
		if err != nil {
			t.Fatal(err)
		}
		p := db.packs[0]
		loaded := func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.index != nil
		}
		read := func() {
			t.Helper()
			if _, _, err := db.Read(h); err != nil || !loaded() {
				t.Fatal(err, loaded())
			}
		}
		for range 3 {
			read()
			wait(idleAfter)
			if !loaded() {
				t.Error("it has gone although it was in use")
			}
		}
		wait(3 * idleAfter)
		if loaded() {
			t.Error("it has stayed although nobody reads")
		}
		read()
		wait(3 * idleAfter)
	})
}
