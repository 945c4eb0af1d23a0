package git_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// cutter lets a number of bytes of an answer through and then hangs or hangs up.
type cutter struct {
	http.ResponseWriter
	left int
	then func()
	cut  bool
}

func (c *cutter) Write(b []byte) (int, error) {
	if len(b) > c.left {
		_, _ = c.ResponseWriter.Write(b[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		c.then()
		c.cut = true
		return 0, http.ErrAbortHandler
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

func (c *cutter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// TestTransferBreaks: whatever moment a transfer ends at, the error is clear,
// what was there before stays, and the next fetch is whole.
func TestTransferBreaks(t *testing.T) {
	root := t.TempDir()
	repo, err := gitserve.Init(t.Context(), root, "app.git", "main")
	if err != nil {
		t.Fatal(err)
	}
	src := rand.NewChaCha8([32]byte{3})
	noise := make([]byte, 200_000)
	n := 0
	commit := func() string {
		_, _ = src.Read(noise)
		n++
		_, err := repo.Commit(t.Context(), gitserve.Commit{Branch: "main", Message: "m", When: time.Unix(int64(n), 0),
			Files: map[string]gitserve.File{"big": {Data: noise}, "n": {Data: []byte(fmt.Sprint(n))}}})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(n)
	}
	var cut atomic.Int64 // after how many bytes of a pack; 0 for never
	var hang atomic.Bool
	handler := gitserve.Handler(root, gitserve.Options{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after := cut.Load()
		if after == 0 || !strings.HasSuffix(r.URL.Path, "/git-upload-pack") || r.ContentLength < 150 {
			handler.ServeHTTP(w, r)
			return
		}
		c := &cutter{ResponseWriter: w, left: int(after), then: func() {
			if hang.Load() {
				<-r.Context().Done()
			}
		}}
		handler.ServeHTTP(c, r)
		if c.cut {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(srv.Close)
	data := t.TempDir()
	s := newStore(t, git.Options{DataDir: data})
	req := git.Request{URL: srv.URL + "/app.git", Ref: main, Timeout: 10 * time.Second}
	first := commit()
	a := mustFetch(t, s, req)
	for _, tc := range []struct {
		name, reason string
		at           int64
		hang         bool
		kind         failure.Kind
		part         string
	}{
		{"before the pack", "", 2, false, failure.Unavailable, "broke off"},
		{"in the pack", "", 100_000, false, failure.Unavailable, "broke off"},
		{"silence in the pack", "the server is there but says no more", 100_000, true, failure.Timeout, "500ms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := commit()
			cut.Store(tc.at)
			hang.Store(tc.hang)
			req := req
			if tc.hang {
				req.Timeout = 500 * time.Millisecond
			}
			wantError(t, fetchError(t, s, req), tc.kind, req.URL, tc.part)
			wantFile(t, a.Tree, "n", first)
			cut.Store(0)
			req.Timeout = 10 * time.Second
			wantFile(t, mustFetch(t, s, req).Tree, "n", want)
		})
	}
	if left, _ := filepath.Glob(filepath.Join(data, "*.git", "objects", "pack", "tmp_*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
