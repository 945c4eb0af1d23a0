package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// plane is a running control plane that ends with this process.
type plane struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	done   chan struct{} // closed when it ended
	client *client
	// kubeconfig is the path of the administrator's kubeconfig.
	kubeconfig string
}

// startPlane starts a fresh control plane below root and returns when it is ready.
func startPlane(ctx context.Context, cfg *config, root, name string) (*plane, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), cfg.localkube, "start", name, "--root", root,
		"--foreground", "--until-stdin-closes", "--components", cfg.components)
	log, err := os.Create(filepath.Join(root, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the control plane: %w; build it with `make build`", err)
	}
	p := &plane{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	p.kubeconfig, err = awaitReady(stdout)
	go func() {
		_ = cmd.Wait() // why it ended is in its log
		close(p.done)
	}()
	if err != nil {
		p.stop()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start the control plane: %w: %s", err, strings.TrimSpace(string(said)))
	}
	if p.client, err = newClient(p.kubeconfig); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// awaitReady reads the line that the control plane prints when it is ready,
// and keeps reading after it so that the pipe never fills.
func awaitReady(stdout io.Reader) (string, error) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "ready kubeconfig="); ok {
			go func() { _, _ = io.Copy(io.Discard, lines) }()
			return path, nil
		}
		if errors.Is(err, io.EOF) {
			return "", errors.New("it ended before it was ready")
		}
		if err != nil {
			return "", err
		}
	}
}

// stop ends the control plane and returns when it is gone.
func (p *plane) stop() {
	_ = p.stdin.Close()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second): // far more than it needs
		_ = p.cmd.Process.Kill()
	}
}

// cpu is the processor time that the control plane has used.
func (p *plane) cpu() time.Duration { return cpuTime(p.cmd.Process.Pid) }
