package cluster

import (
	"bufio"
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

// What the process in the background says to the one that started it, one line on its standard output.
const (
	reportReady   = "ready"
	reportRunning = "running"
	reportFailed  = "failed: "
)

// ServeDetached is Serve for the process that Start has started: it says how the start ended in
// one line on out.
func (c Cluster) ServeDetached(ctx context.Context, settings Settings, timeout time.Duration, out io.Writer) error {
	// Whoever started this process may be gone when it is ready; then nobody is left to tell.
	report := func(line string) { _, _ = fmt.Fprintln(out, line) }
	err := c.Serve(ctx, settings, timeout, func() error { report(reportReady); return nil })
	switch {
	case errors.Is(err, ErrRunning):
		report(reportRunning)
	case err != nil:
		report(reportFailed + strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return err
}

// Start starts the cluster in a process of its own, which outlives this one, and waits until it
// is ready. serve is the command line that ends in ServeDetached. A cluster that already runs is
// left alone: Start waits until it is healthy and returns true.
func (c Cluster) Start(ctx context.Context, timeout time.Duration, serve []string) (alreadyRunning bool, err error) {
	if _, running := c.Running(); running {
		return true, c.waitHealthy(ctx, timeout)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return false, fmt.Errorf("cluster %q: make its folder: %w", c.Name, err)
	}
	log, err := os.OpenFile(c.Log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return false, fmt.Errorf("cluster %q: open log: %w", c.Name, err)
	}
	defer log.Close()
	// It has no context: it outlives this process.
	command := exec.Command(serve[0], serve[1:]...) //nolint:noctx // see above
	command.Dir = "/"
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	reports, err := command.StdoutPipe()
	if err != nil {
		return false, fmt.Errorf("cluster %q: start: %w", c.Name, err)
	}
	if err := command.Start(); err != nil {
		return false, fmt.Errorf("cluster %q: start: %w", c.Name, err)
	}
	// The process minds the timeout itself and says why; this is for one that cannot any more.
	waiting, cancel := context.WithTimeoutCause(ctx, timeout+stopPatience, fmt.Errorf("nothing heard of process %d for %s", command.Process.Pid, timeout+stopPatience))
	defer cancel()
	line, err := firstLine(waiting, reports)
	switch {
	case err != nil:
		_ = command.Process.Kill()
		_ = command.Wait()
		return false, fmt.Errorf("cluster %q: start: %w; last line of %s: %s", c.Name, err, c.Log(), c.lastLogLine())
	case line == reportReady:
		return false, command.Process.Release()
	case line == reportRunning:
		_ = command.Wait()
		return true, c.waitHealthy(ctx, timeout)
	default:
		_ = command.Wait()
		return false, errors.New(strings.TrimPrefix(line, reportFailed))
	}
}

// firstLine waits for a line, the end of the stream, or the end of ctx.
func firstLine(ctx context.Context, stream io.Reader) (string, error) {
	lines := make(chan string, 1)
	go func() {
		defer close(lines)
		if scanner := bufio.NewScanner(stream); scanner.Scan() {
			lines <- scanner.Text()
		}
	}()
	select {
	case line, ok := <-lines:
		if !ok {
			return "", errors.New("the process ended before the cluster was ready")
		}
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// Ignores says whether a cluster that runs is other than the settings want it. They take effect
// when it is stopped and started with them.
func (c Cluster) Ignores(settings Settings) bool {
	state, err := c.State()
	return err == nil && settings.changes(state)
}

// waitHealthy waits until the API server answers that it is ready.
func (c Cluster) waitHealthy(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		healthy, why := c.healthy(ctx)
		if healthy {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster %q runs but is not healthy: %w; look at %s, or stop it with: localkube stop %s", c.Name, why, c.Log(), c.Name)
		case <-time.After(usablePoll):
		}
	}
}
