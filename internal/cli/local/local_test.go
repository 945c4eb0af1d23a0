package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
)

func newPlane(t *testing.T) *Plane {
	t.Helper()
	t.Setenv("BOWLINE_HOME", filepath.Join(t.TempDir(), "home"))
	p, err := Open("test")
	if err != nil {
		t.Fatal(err)
	}
	release, err := p.Lock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return p
}

func TestOpenFindsTheFolder(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		env          map[string]string
		want         string
	}{
		{"own", "the variable of the program comes first", map[string]string{"BOWLINE_HOME": "/b", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/b/planes/p"},
		{"xdg", "then the one of the desktop", map[string]string{"BOWLINE_HOME": "", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/bowline/planes/p"},
		{"home", "then the user's own folder", map[string]string{"BOWLINE_HOME": "", "XDG_DATA_HOME": "", "HOME": "/h"}, "/h/.local/share/bowline/planes/p"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			p, err := Open("p")
			if err != nil || p.Dir != tc.want {
				t.Errorf("%s: %+v, %v; want %s", tc.reason, p, err, tc.want)
			}
		})
	}
}

func TestOneCommandAtATime(t *testing.T) {
	p := newPlane(t)
	if _, err := p.Lock(); !errors.Is(err, failure.Of(failure.Conflict)) {
		t.Errorf("second lock: %v", err)
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		t.Fatalf("not in time: %s", what)
	}
}

func TestServiceInheritsTheListener(t *testing.T) {
	p := newPlane(t)
	l, err := background.Listen(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	s := p.Git()
	// Descriptor 4 is a socket in the child, and stays one after ours are closed.
	if _, err := s.Start("/bin/sh", []string{"-c", "readlink /proc/self/fd/4"}, nil, f); err != nil {
		t.Fatal(err)
	}
	_, _ = f.Close(), l.Close()
	await(t, "descriptor 4 is a socket", func() bool { return strings.HasPrefix(s.LastWords(), "socket:") })
}

func TestSeedNeverOverwrites(t *testing.T) {
	p := newPlane(t)
	files := fstest.MapFS{"a.yaml": {Data: []byte("one")}, "dir/run.sh": {Data: []byte("#!/bin/sh\n")}}
	if made, err := p.Seed(t.Context(), "fleet", files); err != nil || !made {
		t.Fatalf("Seed = %t, %v", made, err)
	}
	repo := &gitserve.Repo{Dir: filepath.Join(p.GitRoot(), Repository)}
	first, err := repo.Resolve(t.Context(), "refs/heads/"+Branch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := gitserve.Command(t.Context(), "-C", repo.Dir, "ls-tree", "-r", "--format=%(objectmode) %(path)", first).Output()
	if err != nil || string(out) != "100644 a.yaml\n100755 dir/run.sh\n" {
		t.Errorf("files = %q, %v", out, err)
	}
	files["a.yaml"] = &fstest.MapFile{Data: []byte("two")}
	if made, err := p.Seed(t.Context(), "fleet", files); err != nil || made {
		t.Fatalf("second Seed = %t, %v", made, err)
	}
	if now, err := repo.Resolve(t.Context(), "refs/heads/"+Branch); err != nil || now != first {
		t.Errorf("main moved from %s to %s, %v", first, now, err)
	}
}

func TestSettingsAreRememberedUntilRemoved(t *testing.T) {
	p := newPlane(t)
	if p.Exists() {
		t.Error("exists before it was started")
	}
	want := Settings{Server: "https://127.0.0.1:1", GitAddr: "127.0.0.1:2", Existing: true}
	if err := p.Remember(want); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Settings(); err != nil || got != want || !p.Exists() {
		t.Errorf("Settings = %+v, %v", got, err)
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder is left behind: %v", err)
	}
}

// What runs is found without being told its name; what does not run is nothing to speak to.
func TestRunningKubeconfig(t *testing.T) {
	p := newPlane(t)
	if got := RunningKubeconfig(); got != "" {
		t.Errorf("nothing runs, and its kubeconfig is %q", got)
	}
	if err := p.Remember(Settings{Kubeconfig: "/plane/kubeconfig"}); err != nil {
		t.Fatal(err)
	}
	if got := RunningKubeconfig(); got != "" {
		t.Errorf("the plane does not run, and its kubeconfig is %q", got)
	}
	if _, err := p.Engine().Start("/bin/sleep", []string{"60"}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = p.Engine().Stop(context.WithoutCancel(t.Context())) })
	if got := RunningKubeconfig(); got != "/plane/kubeconfig" {
		t.Errorf("the plane runs, and its kubeconfig is %q", got)
	}
}
