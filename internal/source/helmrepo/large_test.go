package helmrepo

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/chart"
)

// TestLargeIndex reads an index of 60 MB: what is held of it at any time is a small part of it.
func TestLargeIndex(t *testing.T) {
	// On disk, so that what is measured is not lost beside it.
	whole, broken := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "broken")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	func() {
		text := large(60 << 20)
		at := strings.Index(text[len(text)/4:], "    version:") + len(text)/4
		write(whole, text)
		write(broken, text[:at]+"    version: \"\n"+text[at:])
	}()
	var serve atomic.Pointer[string]
	serve.Store(&whole)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, *serve.Load()) }))
	t.Cleanup(server.Close)
	charts, err := chart.NewStore(filepath.Join(t.TempDir(), "charts"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Dir: t.TempDir(), Charts: charts})
	if err != nil {
		t.Fatal(err)
	}
	peak := watchHeap(t)
	began := time.Now()
	index, err := s.Fetch(t.Context(), Request{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB read in %s, at most %d MB more on the heap", index.Size>>20, time.Since(began), peak()>>20)
	if grown := peak(); grown > 24<<20 {
		t.Errorf("%d MB were held", grown>>20)
	}
	began = time.Now()
	versions, err := index.Versions("chart-0300")
	if err != nil || len(versions) != 100 || versions[7].URLs[0] != "https://charts.example.com/chart-0300-1.7.0.tgz" {
		t.Errorf("%v %d", err, len(versions))
	}
	t.Logf("one chart looked up in %s", time.Since(began))
	began = time.Now()
	if again, err := s.Fetch(t.Context(), Request{URL: server.URL}); err != nil || again != index {
		t.Error(err)
	}
	t.Logf("asked again in %s", time.Since(began))
	serve.Store(&broken)
	if _, err := s.Fetch(t.Context(), Request{URL: server.URL, Auth: Auth{Username: "x", Password: "y"}}); failure.KindOf(err) != failure.Invalid || !strings.Contains(err.Error(), ": line ") {
		t.Errorf("broken in the middle: %v", err)
	} else {
		t.Log(err)
	}
	if _, err := s.Recall(Request{URL: server.URL}, index.Digest); err != nil {
		t.Errorf("the last good one is gone: %v", err)
	}
}

// watchHeap returns what tells by how much the heap has grown at most.
func watchHeap(t *testing.T) func() uint64 {
	t.Helper()
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var most atomic.Uint64
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	tick := time.NewTicker(20 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				runtime.ReadMemStats(&now)
				if now.HeapAlloc > before.HeapAlloc {
					most.Store(max(most.Load(), now.HeapAlloc-before.HeapAlloc))
				}
			}
		}
	}()
	return most.Load
}
