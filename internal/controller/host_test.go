package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// remaining returns the stacks of goroutines that were begun under a label, but for those of connections: these are shared by all
// who reach the same server, and close when they have been idle.
func remaining(t *testing.T, label string) []string {
	t.Helper()
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		t.Fatal(err)
	}
	var left []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q", label)) && !strings.Contains(stack, "net/http.(*persistConn)") && !strings.Contains(stack, "golang.org/x/net/http2.") {
			left = append(left, stack)
		}
	}
	return left
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// awaitReady waits until an engine has been through its first reconciles.
func awaitReady(t testing.TB, e *liveEngine, address string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
		if err != nil {
			return false, err
		}
		response, err := client.Do(request)
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
	if err != nil {
		t.Fatalf("the engine does not start: %v\n%s", err, e.log.about(""))
	}
}

// An engine that ends leaves nothing behind: those of members come and go while the process runs on.
func TestEnginesEnd(t *testing.T) {
	config := testkit.Start(t).Config
	if err := crds.Apply(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range 3 {
		label := fmt.Sprintf("engine-%d", i)
		var e *liveEngine
		address := freeAddress(t)
		pprof.Do(t.Context(), pprof.Labels("test", label), func(context.Context) {
			e = runEngine(config, dir, func(o *Options) { o.HealthAddr = address }) //nolint:contextcheck // the label is what counts
		})
		awaitReady(t, e, address)
		if i == 0 && len(remaining(t, label)) == 0 {
			t.Fatal("no goroutine of a running engine is found, so that none would be missed")
		}
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
			return len(remaining(t, label)) == 0, nil
		})
		if err != nil {
			t.Errorf("after engine %d has ended there are still:\n%s", i, strings.Join(remaining(t, label), "\n\n"))
		}
		if families, err := e.registry.Gather(); err != nil || len(families) > 0 {
			t.Errorf("engine %d still shows %d meters, %v", i, len(families), err)
		}
	}
}

// Engines share a repository, and yet each is given only what it could fetch itself.
func TestRepositoriesAreShared(t *testing.T) {
	t.Parallel()
	server := testkit.NewGitServer(t, testkit.GitBasicAuth("reader", "secret"))
	repo := server.Repo("private")
	commit := repo.Commit(map[string]string{"a": "1"})
	store, err := git.New(git.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	own, one, other := repositories{Store: store}, repositories{store, "one"}, repositories{store, "other"}
	// A cluster says itself which uids its objects have.
	request := git.Request{URL: repo.URL(), Ref: git.Ref{Branch: "main"}, For: "the-same-uid"}
	authorised := request
	authorised.Auth = git.Auth{Username: "reader", Password: "secret"}
	got, err := one.Fetch(t.Context(), authorised)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Recall(t.Context(), request, got.Revision); err != nil {
		t.Errorf("who was given a revision cannot recall it: %v", err)
	}
	pinned := request
	pinned.Ref = git.Ref{Commit: commit}
	for name, r := range map[string]repositories{"the process's own": own, "another member's": other} {
		if _, err := r.Recall(t.Context(), request, got.Revision); !errors.Is(err, failure.Of(failure.NotFound)) {
			t.Errorf("the engine that is %s recalls what a member fetched: %v", name, err)
		}
		for _, without := range []git.Request{request, pinned} {
			if _, err := r.Fetch(t.Context(), without); !errors.Is(err, failure.Of(failure.Denied)) {
				t.Errorf("the engine that is %s gets what is on disk without credentials: %v", name, err)
			}
		}
	}
}
