package controlplane

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketPathIsOneThatASocketCanHave(t *testing.T) {
	short := t.TempDir()
	deep := filepath.Join(short, strings.Repeat("folder/", 30))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, reason, dir string
		elsewhere         bool
	}{
		{"short", "the socket is with the rest of the cluster", short, false},
		{"deep", "the system limits the path of a socket, but not that of a folder", deep, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			socket, tempDir, err := socketPath(c.dir)
			if err != nil {
				t.Fatal(err)
			}
			if tempDir != "" {
				t.Cleanup(func() { _ = os.RemoveAll(tempDir) })
			}
			if elsewhere := tempDir != ""; elsewhere != c.elsewhere {
				t.Errorf("socket %s, elsewhere: %v, want %v (%s)", socket, elsewhere, c.elsewhere, c.reason)
			}
			listener, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			info, err := os.Stat(filepath.Dir(socket))
			if err != nil {
				t.Fatal(err)
			}
			if c.elsewhere && info.Mode().Perm() != 0o700 {
				t.Errorf("the folder of the socket has mode %o, want 700", info.Mode().Perm())
			}
		})
	}
}
