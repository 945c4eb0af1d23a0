package cluster

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestDefaultRoot(t *testing.T) {
	cases := []struct {
		name, reason string
		environment  map[string]string
		want         string
	}{
		{"bowline home", "wins over all", map[string]string{"BOWLINE_HOME": "/b", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/b/clusters"},
		{"data home", "the desktop's convention", map[string]string{"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/bowline/clusters"},
		{"home", "the default of that convention", map[string]string{"HOME": "/h"}, "/h/.local/share/bowline/clusters"},
		{"nothing", "no guess at a folder", nil, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := DefaultRoot(func(name string) string { return c.environment[name] })
			if got != c.want || (err != nil) != (c.want == "") {
				t.Errorf("got %q, %v; want %q (%s)", got, err, c.want, c.reason)
			}
		})
	}
}

func TestOpenRefusesNames(t *testing.T) {
	for _, name := range []string{"", "..", "a/b", "UPPER", "-a", "a-", "a.b", strings.Repeat("a", 54)} {
		if _, err := Open(t.TempDir(), name); err == nil {
			t.Errorf("name %q is accepted: it becomes a folder and a context", name)
		}
	}
	if _, err := Open(t.TempDir(), "my-cluster-1"); err != nil {
		t.Error(err)
	}
}

func TestParseComponents(t *testing.T) {
	cases := []struct {
		name, reason, text string
		want               []string
	}{
		{"all", "the default", "all", AllComponents()},
		{"one", "the API server alone", "apiserver", []string{ComponentAPIServer}},
		{"without the API server", "it always runs", "controller-manager", []string{ComponentAPIServer, ComponentControllerManager}},
		{"unknown", "a typing error must not start less than was meant", "apiserver,scheduller", nil},
		{"empty", "an empty variable must not start everything", "", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseComponents(c.text)
			if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) {
				t.Errorf("got %v, %v; want %v (%s)", got, err, c.want, c.reason)
			}
		})
	}
}

func TestLock(t *testing.T) {
	c := newCluster(t)
	if _, running := c.Running(); running {
		t.Error("a cluster without a lock runs")
	}
	held, err := c.acquire()
	if err != nil {
		t.Fatal(err)
	}
	if pid, running := c.Running(); !running || pid != os.Getpid() {
		t.Errorf("Running says %d, %v; want this process", pid, running)
	}
	if _, err := c.acquire(); !errors.Is(err, ErrRunning) {
		t.Errorf("a second process gets the lock: %v", err)
	}
	held.release()
	if _, running := c.Running(); running {
		t.Error("runs after the lock was released")
	}
	held, err = c.acquire()
	if err != nil {
		t.Fatalf("after it was released: %v", err)
	}
	held.release()
}

func TestListen(t *testing.T) {
	c := newCluster(t)
	listener, port, err := c.listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if address := listener.Addr().(*net.TCPAddr); !address.IP.IsLoopback() || address.Port != port {
		t.Errorf("listens on %s, says port %d", address, port)
	}
	if _, _, err := c.listen(t.Context(), port); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
}

func TestStateOfBrokenFile(t *testing.T) {
	c := newCluster(t)
	if _, err := c.State(); !errors.Is(err, ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(c.stateFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.State(); err == nil || !strings.Contains(err.Error(), c.stateFile()) {
		t.Errorf("a broken file must be named: %v", err)
	}
}

func newCluster(t *testing.T) Cluster {
	t.Helper()
	c, err := Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.Dir) {
		t.Fatalf("%s is not absolute", c.Dir)
	}
	return c
}
