package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ticksPerSecond is the unit of CPU times in /proc, which Linux fixes at 100
// for user space on all common architectures.
const ticksPerSecond = 100

// process is a running program and all that it starts.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended

	// mu guards peak.
	mu   sync.Mutex
	peak int64 // highest sum of high-water marks seen, bytes
}

// startShell starts a shell command in a process group of its own, with its
// output in the file at log.
func startShell(ctx context.Context, command, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = out.Close() }()
	// Does not end with ctx: the benchmark ends it itself, with all its children.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-c", "exec "+command)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", command, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	go p.sample()
	return p, nil
}

// sample looks at the resident memory twice a second, because children that
// come and go leave no trace of their own peak.
func (p *process) sample() {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
			p.usage()
		}
	}
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process and its children at once, as kill -9 does, and returns
// when it is gone.
func (p *process) kill() {
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	<-p.done
}

// usage is what a process and its children have used.
type usage struct {
	cpu      time.Duration // so far, children that ended included
	resident int64         // bytes now
	peak     int64         // bytes at most
}

// usage reads /proc. The peak is the highest sum, at any look so far, of the
// high-water marks of the processes that ran at that moment.
func (p *process) usage() usage {
	u := treeUsage(p.cmd.Process.Pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peak = max(p.peak, u.peak)
	u.peak = p.peak
	return u
}

func treeUsage(pid int) usage {
	u := usage{cpu: cpuTime(pid), resident: statusBytes(pid, "VmRSS"), peak: statusBytes(pid, "VmHWM")}
	for _, child := range children(pid) {
		c := treeUsage(child)
		u.cpu += c.cpu
		u.resident += c.resident
		u.peak += c.peak
	}
	return u
}

// cpuTime is the user and system time of pid and of its children that ended.
func cpuTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it ended meanwhile: its parent has its time now
	}
	// The second field may hold spaces; the ones after it are numbered from 3.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 15 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err == nil {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// statusBytes reads one size of /proc/PID/status.
func statusBytes(pid int, field string) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kb * 1024
		}
	}
	return 0
}

// children lists the processes that any thread of pid started.
func children(pid int) []int {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, name := range lists {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // the thread ended
		}
		for f := range strings.FieldsSeq(string(data)) {
			if n, err := strconv.Atoi(f); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}
