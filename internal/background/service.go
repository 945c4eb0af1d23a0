// Package background is the room of processes that run in the background, and may outlive the command that
// started them: it starts, finds and stops them. What they do is not its business.
package background

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Service is a process in the background. Its files are in a folder of its own or one that it shares with
// services of other names.
//
// It holds an exclusive lock on a file for as long as it lives, which the
// kernel releases however it ends. A process id is therefore trusted only while
// the lock is held: a stale file never makes a stranger look like the service.
type Service struct {
	// Dir holds its files, and is where it runs. Name is what they are called.
	Dir, Name string
	// Grace is how long it may take to end by itself, and then once more how long the kernel may take to
	// end it; 0 means 15 seconds.
	Grace time.Duration
}

func (s Service) grace() time.Duration {
	if s.Grace == 0 {
		return 15 * time.Second
	}
	return s.Grace
}

// Log is the path of the file that the service writes to.
func (s Service) Log() string { return filepath.Join(s.Dir, s.Name+".log") }

func (s Service) pidFile() string  { return filepath.Join(s.Dir, s.Name+".pid") }
func (s Service) lockFile() string { return filepath.Join(s.Dir, s.Name+".lock") }

// Running returns the service's process id, and false when it does not run.
func (s Service) Running() (int, bool) {
	if _, err := os.Stat(s.lockFile()); err != nil {
		return 0, false
	}
	f, err := TryLock(s.lockFile())
	if err == nil {
		_ = f.Close()
		return 0, false
	}
	raw, err := os.ReadFile(s.pidFile())
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	return pid, err == nil
}

// Start starts executable in the background, in a session of its own. Open
// files in extra are the child's descriptors 4 and up. The channel is closed if
// the process ends while this one still runs.
func (s Service) Start(executable string, args, env []string, extra ...*os.File) (<-chan struct{}, error) {
	lock, err := TryLock(s.lockFile())
	if errors.Is(err, ErrLocked) {
		return nil, &failure.Error{Op: "start", Object: s.Name, Kind: failure.Conflict, Err: errors.New("it is running already")}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, &failure.Error{Op: "open", Object: s.Log(), Kind: failure.Denied, Err: err}
	}
	defer func() { _ = log.Close() }()

	cmd := exec.Command(executable, args...) //nolint:noctx // it outlives the command that starts it
	// The name by which the program knows itself, whatever its file is called.
	cmd.Args[0] = "bowline"
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = append([]*os.File{lock}, extra...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, &failure.Error{Op: "start", Object: s.Name, Kind: failure.Unavailable, Err: err}
	}
	exited := make(chan struct{})
	go func() {
		// How it ended stands in its log.
		_ = cmd.Wait()
		close(exited)
	}()
	if err := WriteFile(s.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)+"\n")); err != nil {
		_ = cmd.Process.Kill()
		return nil, &failure.Error{Op: "write", Object: s.pidFile(), Kind: failure.Denied, Err: err}
	}
	return exited, nil
}

// heldLock is the descriptor of the lock in the process of a service.
const heldLock = 3

// HoldAlone is for a service whose own children may outlive it: from now on the lock is not theirs as well, and the
// service has ended when it has, whatever becomes of them. It does nothing in a process that is no service.
func HoldAlone() { syscall.CloseOnExec(heldLock) }

// Stop ends the service and what it started, and reports whether it ran. A
// service that does not end in time is killed.
func (s Service) Stop(ctx context.Context) (bool, error) {
	pid, running := s.Running()
	if !running {
		return false, nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return true, &failure.Error{Op: "stop", Object: s.Name, Kind: failure.Denied, Err: err}
	}
	ended, cancel := context.WithTimeout(ctx, s.grace())
	defer cancel()
	if s.awaitEnd(ended) {
		return true, nil
	}
	// The service leads its process group, so that its children go with it.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	killed, cancelKilled := context.WithTimeout(ctx, s.grace())
	defer cancelKilled()
	if !s.awaitEnd(killed) {
		return true, &failure.Error{Op: "stop", Object: s.Name, Kind: failure.Timeout, Err: fmt.Errorf("process %d does not end", pid)}
	}
	return true, nil
}

// awaitEnd looks until the lock is free: the process is not our child, so there
// is nothing to be told by.
func (s Service) awaitEnd(ctx context.Context) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, running := s.Running(); !running {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// LastWords returns the end of the service's log, for a person to read when
// it ended unasked.
func (s Service) LastWords() string {
	const most = 4096
	f, err := os.Open(s.Log())
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return ""
		}
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return lines[len(lines)-1]
}

// ErrLocked says that somebody else holds a lock.
var ErrLocked = errors.New("locked")

// TryLock opens and locks a file without waiting; ErrLocked when somebody else
// holds it.
func TryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &failure.Error{Op: "open", Object: name, Kind: failure.Denied, Err: err}
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = f.Close()
		return nil, ErrLocked
	case err != nil:
		_ = f.Close()
		return nil, &failure.Error{Op: "lock", Object: name, Kind: failure.Unavailable, Err: err}
	}
	return f, nil
}

// WriteFile replaces a file in one step, so that nobody reads half of it.
func WriteFile(name string, data []byte) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
