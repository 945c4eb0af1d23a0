package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/localkube/internal/cluster"
)

// expectOneLoopbackPort checks that the process of a cluster listens for TCP at the address of its
// API server and nowhere else, and that its other doors are in a folder of its own.
func expectOneLoopbackPort(t *testing.T, status cluster.Status) {
	t.Helper()
	var port int
	if _, err := fmt.Sscanf(status.Server, "https://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("0100007F:%04X", port) // 127.0.0.1 as the kernel prints it
	sockets := socketsOf(t, status.PID)
	var listening []string
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", status.PID, table))
		if err != nil {
			t.Skipf("the kernel does not tell who listens: %v", err)
		}
		for _, line := range strings.Split(string(data), "\n")[1:] {
			fields := strings.Fields(line)
			const listen = "0A"
			if len(fields) > 9 && fields[3] == listen && sockets[fields[9]] {
				listening = append(listening, fields[1])
			}
		}
	}
	if len(listening) != 1 || listening[0] != want {
		t.Errorf("listens at %v, want only %s", listening, want)
	}
	info, err := os.Stat(status.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the folder that holds the socket of etcd has mode %o, want 700", info.Mode().Perm())
	}
}

// expectNoInotify checks that the process of a cluster takes none of the inotify instances of its
// user, of which there are few: many clusters would leave none to other programs.
func expectNoInotify(t *testing.T, status cluster.Status) {
	t.Helper()
	for _, target := range descriptorsOf(t, status.PID) {
		if target == "anon_inode:inotify" {
			t.Error("the process holds an inotify instance")
		}
	}
}

// socketsOf returns the inodes of the sockets that a process holds.
func socketsOf(t *testing.T, pid int) map[string]bool {
	t.Helper()
	sockets := map[string]bool{}
	for _, target := range descriptorsOf(t, pid) {
		if inode, found := strings.CutPrefix(target, "socket:["); found {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return sockets
}

// descriptorsOf returns what the descriptors of a process are of.
func descriptorsOf(t *testing.T, pid int) []string {
	t.Helper()
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, descriptor := range descriptors {
		if target, err := os.Readlink(descriptor); err == nil { // else closed since
			targets = append(targets, target)
		}
	}
	return targets
}
