package background_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
)

func start(t *testing.T, s background.Service, script string) <-chan struct{} {
	t.Helper()
	exited, err := s.Start("/bin/sh", []string{"-c", script}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return exited
}

func TestServiceLivesAndEnds(t *testing.T) {
	s := background.Service{Dir: t.TempDir(), Name: "engine"}
	if _, running := s.Running(); running {
		t.Fatal("runs before it was started")
	}
	exited := start(t, s, "exec sleep 600")
	pid, running := s.Running()
	if !running || pid <= 0 {
		t.Fatalf("Running = %d, %t", pid, running)
	}
	if _, err := s.Start("/bin/true", nil, nil); !errors.Is(err, failure.Of(failure.Conflict)) {
		t.Errorf("second start: %v", err)
	}
	ran, err := s.Stop(t.Context())
	if err != nil || !ran {
		t.Fatalf("Stop = %t, %v", ran, err)
	}
	<-exited
	if ran, err := s.Stop(t.Context()); ran || err != nil {
		t.Errorf("second Stop = %t, %v", ran, err)
	}
}

func TestServiceThatWasKilledDoesNotRun(t *testing.T) {
	s := background.Service{Dir: t.TempDir(), Name: "engine"}
	exited := start(t, s, "exec sleep 600")
	pid, _ := s.Running()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exited
	if pid, running := s.Running(); running {
		t.Errorf("a stale file makes process %d look like the service", pid)
	}
}

func TestServiceThatWillNotEndIsKilledWithItsChildren(t *testing.T) {
	s := background.Service{Dir: t.TempDir(), Name: "engine", Grace: 200 * time.Millisecond}
	ready := filepath.Join(t.TempDir(), "ready")
	// The child holds on to the lock as well, so Stop returns only when it is gone too.
	exited := start(t, s, `trap "" TERM; mkfifo `+ready+`; sleep 600 & echo up > `+ready+`; wait`)
	awaitFIFO(t, ready)
	if ran, err := s.Stop(t.Context()); err != nil || !ran {
		t.Fatalf("Stop = %t, %v", ran, err)
	}
	<-exited
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		t.Fatalf("not in time: %s", what)
	}
}

// awaitFIFO returns when somebody wrote to the pipe at path.
func awaitFIFO(t *testing.T, path string) {
	t.Helper()
	await(t, "the script starts", func() bool { _, err := os.Stat(path); return err == nil })
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

func TestServiceThatFailsLeavesItsLastWords(t *testing.T) {
	s := background.Service{Dir: t.TempDir(), Name: "engine"}
	<-start(t, s, "echo one >&2; echo no such thing >&2; exit 3")
	if got := s.LastWords(); got != "no such thing" {
		t.Errorf("LastWords = %q", got)
	}
}
