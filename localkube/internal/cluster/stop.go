package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

const (
	// stopPatience is how long a cluster may take to stop by itself before it is killed. What
	// the API server has acknowledged survives that as well.
	stopPatience = 15 * time.Second
	stopPoll     = 20 * time.Millisecond
)

// Stop stops the cluster and returns whether it was running. Its data stays.
func (c Cluster) Stop(ctx context.Context) (wasRunning bool, err error) {
	if _, err := c.State(); err != nil {
		return false, err
	}
	pid, running := c.Running()
	if !running {
		return false, nil
	}
	if pid <= 0 {
		return true, fmt.Errorf("cluster %q: it runs, but %s does not say as which process", c.Name, c.lockFile())
	}
	if err := signal(pid, syscall.SIGTERM); err != nil {
		return true, fmt.Errorf("cluster %q: stop process %d: %w", c.Name, pid, err)
	}
	patience, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if c.waitStopped(patience) == nil {
		return true, nil
	}
	if err := ctx.Err(); err != nil {
		return true, fmt.Errorf("cluster %q: stop process %d: %w", c.Name, pid, err)
	}
	if err := signal(pid, syscall.SIGKILL); err != nil {
		return true, fmt.Errorf("cluster %q: kill process %d: %w", c.Name, pid, err)
	}
	if err := c.waitStopped(ctx); err != nil {
		return true, fmt.Errorf("cluster %q: kill process %d: %w", c.Name, pid, err)
	}
	return true, nil
}

func (c Cluster) waitStopped(ctx context.Context) error {
	for {
		if _, running := c.Running(); !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stopPoll):
		}
	}
}

// Delete removes the cluster and its data. It refuses while the cluster runs, unless told to
// stop it first.
func (c Cluster) Delete(ctx context.Context, stopFirst bool) error {
	if !c.Exists() {
		_, err := c.State()
		return err
	}
	if stopFirst {
		if _, err := c.Stop(ctx); err != nil {
			return err
		}
	}
	held, err := c.acquire()
	if errors.Is(err, ErrRunning) {
		return fmt.Errorf("cluster %q is running; stop it with: localkube stop %s, or delete it with --force: %w", c.Name, c.Name, ErrRunning)
	}
	if err != nil {
		return err
	}
	defer held.release()
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("cluster %q: delete: %w", c.Name, err)
	}
	return nil
}

// signal treats a process that is already gone as signalled.
func signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
