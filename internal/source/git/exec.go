package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// command returns git for work on the disk alone: it has no configuration but
// what is given here, cannot reach a network, ask a question or run a hook, and
// dies with all its children when the context ends. Credentials never reach it.
func command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	args = append([]string{
		"-C", dir, "-c", "protocol.allow=never", "-c", "core.hooksPath=" + os.DevNull, "-c", "gc.auto=0",
		"-c", "safe.directory=*", "-c", "pack.threads=2", "-c", "pack.windowMemory=32m",
		"-c", "core.packedGitLimit=64m", "-c", "core.deltaBaseCacheLimit=16m",
		// Larger files pass through without being held in memory.
		"-c", "core.bigFileThreshold=4m",
	}, args...)
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.DevNull, "LC_ALL=C", "GIT_DIR=" + dir,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs git and returns its first line of complaint as the error.
func run(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("the git executable is not on the PATH: %w", err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	if line == "" {
		return fmt.Errorf("git: %w", err)
	}
	return fmt.Errorf("git: %s: %w", line, err)
}

// initRepository makes an empty bare repository. It appears under its name only when it is whole.
func initRepository(ctx context.Context, dir string) error {
	unborn := dir + ".new"
	if err := os.RemoveAll(unborn); err != nil {
		return err
	}
	if err := os.MkdirAll(unborn, 0o700); err != nil {
		return err
	}
	if err := run(command(ctx, unborn, "init", "--quiet", "--bare", "--template=", "--object-format=sha1", unborn)); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(unborn, dir)
}

// indexPack stores a pack that arrives as a stream. Objects that it refers to
// and that are here already are added to it, so that each pack stands alone.
// A pack appears under its name only when it is whole and safe on the disk.
func indexPack(ctx context.Context, dir string, pack io.Reader) error {
	src := &countReader{r: pack}
	cmd := command(ctx, dir, "index-pack", "--stdin", "--fix-thin")
	cmd.Stdin = src
	err := run(cmd)
	// When the stream breaks, git's complaint about it says less than the stream's own error.
	if src.err != nil && !errors.Is(src.err, io.EOF) {
		return src.err
	}
	return err
}

// countReader remembers how a stream ended.
type countReader struct {
	r   io.Reader
	err error
}

func (c *countReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if err != nil {
		c.err = err
	}
	return n, err
}
