package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// Tool returns the path of an executable that the Makefile builds in bin/tools, for tests
// that drive somebody else's program. Without it the test is skipped.
func Tool(t testing.TB, name string) string {
	t.Helper()
	root, err := repositoryRoot()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	path := filepath.Join(root, "bin", "tools", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED: %s is not built, so nothing here was tested; build it with: make bin/tools/%s", path, name)
	}
	return path
}
