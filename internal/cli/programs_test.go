package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// testVersion is what the program says that it is.
const testVersion = "v0.0.0-test"

// programs is a folder that holds the program under its two names, and the one
// that makes output comparable. They are the test executable: under the race detector,
// if the tests are. A race ends a program with a status of its own, so that it fails a
// test that awaits the end of what it starts.
func programs(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return linked(t, self)
}

// processes is programs for tests that leave processes to themselves, or kill them. What the race
// detector had to say would go to logs that nobody reads, while it makes each process
// take several times as long: so they are built without it.
func processes(t *testing.T) string {
	t.Helper()
	built.once.Do(built.build)
	if built.err != nil {
		t.Fatalf("build the program: %v", built.err)
	}
	return linked(t, built.program())
}

func linked(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bowline", "kubectl-bowline"} {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "plain"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// built is the program without the race detector, which the tests of this process share.
var built builtProgram

type builtProgram struct {
	once sync.Once
	dir  string
	err  error
}

func (b *builtProgram) program() string { return filepath.Join(b.dir, "bowline") }

func (b *builtProgram) build() {
	if b.dir, b.err = os.MkdirTemp("", "bowline-program-"); b.err != nil {
		return
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w -X main.version="+testVersion, "-o", b.program(), "../../cmd/bowline")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as all that is not under the race detector: it is compiled already
	if output, err := build.CombinedOutput(); err != nil {
		b.err = fmt.Errorf("%w\n%s", err, output)
	}
}

func (b *builtProgram) remove() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
