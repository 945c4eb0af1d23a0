package testkit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// localkubeFlags is how the executable is built: stripped, because it is large, and with the
// version of Kubernetes that the API server reports.
const localkubeFlags = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3"

// moduleLine is the first line of the go.mod of the repository.
const moduleLine = "module github.com/bowline-dev/bowline\n"

// Localkube returns the path of the localkube executable: $BOWLINE_LOCALKUBE, else bin/localkube
// of the repository, which is built if it is missing. Building from nothing takes minutes; tests
// of several packages that run at once wait for one build.
func Localkube(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("BOWLINE_LOCALKUBE"); path != "" {
		return path
	}
	root, err := repositoryRoot()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	path := filepath.Join(root, "bin", "localkube")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := buildLocalkube(root, path); err != nil {
		t.Fatalf("testkit: build localkube: %v", err)
	}
	return path
}

func repositoryRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte(moduleLine)) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no repository around %s; set BOWLINE_LOCALKUBE to a localkube executable", start)
		}
	}
}

// buildLocalkube builds the executable unless somebody else did while it waited for its turn.
func buildLocalkube(root, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	turn, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer turn.Close()
	if err := syscall.Flock(int(turn.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", turn.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	build := exec.Command("go", "build", "-ldflags", localkubeFlags, "-o", path, "./cmd/localkube")
	build.Dir = filepath.Join(root, "localkube")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return nil
}
