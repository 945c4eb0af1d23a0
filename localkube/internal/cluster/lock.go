package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrRunning is wrapped by errors about a cluster that some process already runs.
var ErrRunning = errors.New("already running")

const (
	// lockPatience outlasts the moment for which somebody who only looks (Running) holds the lock.
	lockPatience = 200 * time.Millisecond
	lockPoll     = 10 * time.Millisecond
)

// lock is held by the process that runs a cluster. The kernel releases it when that process
// ends, however it ends.
type lock struct{ file *os.File }

func (c Cluster) lockFile() string { return filepath.Join(c.Dir, "lock") }

// acquire takes the lock and notes the process in it, or returns ErrRunning.
func (c Cluster) acquire() (*lock, error) {
	file, err := os.OpenFile(c.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster %q: open lock: %w", c.Name, err)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPoll) { //nolint:forbidigo // the kernel tells nobody when a lock becomes free
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			_ = file.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				err = ErrRunning
			}
			return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
		}
	}
	if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("cluster %q: write lock: %w", c.Name, err)
	}
	return &lock{file: file}, nil
}

func (l *lock) release() { _ = l.file.Close() }

// Running returns the process that runs the cluster, or false when none does.
func (c Cluster) Running() (pid int, running bool) {
	file, err := os.Open(c.lockFile())
	if err != nil {
		return 0, false
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return 0, false
	}
	data, err := os.ReadFile(c.lockFile())
	if err != nil {
		return 0, true
	}
	pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	return pid, true
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}
