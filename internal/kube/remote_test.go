package kube

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/failure"
)

// distant is a server behind a Remote.
type distant struct {
	*httptest.Server
	*Remote
	mu    sync.Mutex
	heard []string        // guarded by mu
	late  map[string]bool // guarded by mu; troubles, by whether they were late
}

// newDistant is a server that hangs at /hang and stalls in the middle
// at /stall, until the test ends.
func newDistant(t *testing.T, patience time.Duration) *distant {
	t.Helper()
	d := &distant{late: map[string]bool{}}
	over := make(chan struct{})
	d.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		d.mu.Lock()
		d.heard = append(d.heard, req.Header.Get("Authorization")+" "+req.URL.Path)
		d.mu.Unlock()
		switch flusher, _ := w.(http.Flusher); {
		case strings.HasSuffix(req.URL.Path, "/hang"):
			hold(req.Context(), over)
		case strings.HasSuffix(req.URL.Path, "/stall"):
			fmt.Fprint(w, "some")
			flusher.Flush()
			hold(req.Context(), over)
		default:
			fmt.Fprint(w, "all")
		}
	}))
	d.Remote = NewRemote(patience, func(err error, late bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.late[err.Error()] = late
	})
	t.Cleanup(func() { close(over); d.Server.Close() })
	return d
}

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func hold(ctx context.Context, over <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-over:
	}
}

func (d *distant) way(t *testing.T, token, prefix string) *Way {
	t.Helper()
	config := &rest.Config{Host: d.URL + prefix, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: pemOf(d.Server)}}
	w, err := NewWay(config, d.Last())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (d *distant) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://baked.example.com"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := (&http.Client{Transport: d.Remote}).Do(req)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// Nobody waits for an answer longer than the patience: not for its beginning and not
// for its end. A watch may last.
func TestRemotePatience(t *testing.T) {
	cases := []struct {
		name, reason, path string
		late               bool
	}{
		{"answer", "it is there", "/api", false},
		{"no answer", "the server hangs", "/hang", true},
		{"half an answer", "the server hangs in the middle", "/stall", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			patience := time.Minute
			if c.late {
				patience = 200 * time.Millisecond
			}
			d := newDistant(t, patience)
			d.Open(d.way(t, "one", ""))
			_, err := d.get(t.Context(), c.path)
			if (failure.KindOf(err) == failure.Timeout) != c.late {
				t.Errorf("%v: %s", err, c.reason)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if len(d.late) > 0 != c.late {
				t.Errorf("troubles: %v; %s", d.late, c.reason)
			}
		})
	}
	t.Run("watch", func(t *testing.T) {
		const patience = 2 * time.Second // within which the answer has to begin
		d := newDistant(t, patience)
		d.Open(d.way(t, "one", ""))
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		if _, err := d.get(ctx, "/stall?watch=true"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it ended with %v, and not when its sender ended it", err)
		}
		if len(d.late) > 0 {
			t.Errorf("troubles: %v", d.late)
		}
	})
}

// Shutting ends what is under way and turns away the rest, with the reason; a probe
// still finds out who answers.
func TestRemoteShuts(t *testing.T) {
	d := newDistant(t, time.Minute)
	cause := errors.New("out of reach")
	if _, err := d.get(t.Context(), "/api"); !errors.Is(err, ErrShut) {
		t.Errorf("before it was opened: %v", err)
	}
	w := d.way(t, "one", "")
	d.Open(w)
	ended := make(chan error)
	go func() {
		_, err := d.get(context.Background(), "/stall?watch=true")
		ended <- err
	}()
	for began := false; !began; {
		d.mu.Lock()
		began = len(d.heard) > 0
		d.mu.Unlock()
	}
	d.Shut(cause)
	if err := <-ended; err == nil {
		t.Error("a watch went on")
	}
	if _, err := d.get(t.Context(), "/api"); !errors.Is(err, ErrShut) || !errors.Is(err, cause) || !strings.HasSuffix(err.Error(), cause.Error()) {
		t.Errorf("while it is shut: %v", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: d.Probe(w)}).Do(req)
	if err != nil {
		t.Fatalf("a probe: %v", err)
	}
	_ = response.Body.Close()
	if len(d.late) > 0 {
		t.Errorf("troubles: %v", d.late)
	}
	d.Open(w)
	if body, err := d.get(t.Context(), "/api"); body != "all" || err != nil {
		t.Errorf("opened again: %q, %v", body, err)
	}
}

// New credentials and a new address count from the next request on; a new token costs
// no new connection.
func TestRemoteRotates(t *testing.T) {
	d := newDistant(t, time.Minute)
	first := d.way(t, "one", "")
	d.Open(first)
	if _, err := d.get(t.Context(), "/api"); err != nil {
		t.Fatal(err)
	}
	second := d.way(t, "two", "/clusters/c-1/")
	if second.transport != first.transport {
		t.Error("a new token costs a new connection")
	}
	d.Open(second)
	if _, err := d.get(t.Context(), "/api"); err != nil {
		t.Fatal(err)
	}
	want := "[Bearer one /api Bearer two /clusters/c-1/api]"
	if got := fmt.Sprint(d.heard); got != want {
		t.Errorf("the server heard %s, want %s", got, want)
	}
	other := &rest.Config{Host: d.URL, TLSClientConfig: rest.TLSClientConfig{CAData: pemOf(d.Server), ServerName: "example.com"}}
	if third, err := NewWay(other, d.Last()); err != nil || third.transport == first.transport {
		t.Errorf("other TLS settings share connections (%v)", err)
	}
}

// What was decided about one cluster is not done to another.
func TestRemoteOnly(t *testing.T) {
	d := newDistant(t, time.Minute)
	client := &http.Client{Transport: d.Only("one")}
	ask := func(cluster string) error {
		way := d.way(t, "one", "")
		way.Cluster = cluster
		d.Open(way)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://cluster/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(req)
		if err == nil {
			err = response.Body.Close()
		}
		return err
	}
	if err := ask("one"); err != nil {
		t.Errorf("the cluster that was meant is not asked: %v", err)
	}
	if err := ask("two"); !errors.Is(err, ErrShut) {
		t.Errorf("another cluster is asked in its place: %v", err)
	}
}
