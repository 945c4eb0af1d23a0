package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

// ControlPlane is a plane's embedded control plane, run by the localkube
// executable.
type ControlPlane struct {
	plane      *Plane
	executable string
}

// ControlPlaneState is what localkube says of a control plane.
type ControlPlaneState struct {
	Phase      string `json:"phase"`
	PID        int    `json:"pid"`
	Server     string `json:"server"`
	Kubeconfig string `json:"kubeconfig"`
	Log        string `json:"log"`
}

// Running reports whether the control plane runs.
func (s ControlPlaneState) Running() bool { return s.Phase == "running" }

// ControlPlane finds the localkube executable: $BOWLINE_LOCALKUBE, else beside
// this program, else on the PATH.
func (p *Plane) ControlPlane() (*ControlPlane, error) {
	if path := os.Getenv("BOWLINE_LOCALKUBE"); path != "" {
		return &ControlPlane{plane: p, executable: path}, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "localkube")
		if _, err := os.Stat(beside); err == nil {
			return &ControlPlane{plane: p, executable: beside}, nil
		}
	}
	path, err := exec.LookPath("localkube")
	if err != nil {
		return nil, &failure.Error{Op: "find", Object: "localkube", Kind: failure.NotFound,
			Err:    errors.New("it is neither beside this program nor on the PATH"),
			Remedy: "build it with `make build`, set BOWLINE_LOCALKUBE, or use an existing cluster with --kubeconfig"}
	}
	return &ControlPlane{plane: p, executable: path}, nil
}

// HasControlPlane reports whether the plane has an embedded control plane, or
// its data, on this machine.
func (p *Plane) HasControlPlane() bool {
	_, err := os.Stat(filepath.Join(p.Clusters, p.Name, "cluster.json"))
	return err == nil
}

// ClearControlPlane removes what a control plane that never came to be left.
func (p *Plane) ClearControlPlane() error {
	if p.HasControlPlane() {
		return nil
	}
	dir := filepath.Join(p.Clusters, p.Name)
	if err := os.RemoveAll(dir); err != nil {
		return &failure.Error{Op: "remove", Object: dir, Kind: failure.Denied, Err: err}
	}
	return nil
}

// Start starts the control plane, or finds it running, and returns when it is
// ready. port 0 means a free one, or the one it had before.
func (c *ControlPlane) Start(ctx context.Context, nodes, port int) (ControlPlaneState, error) {
	args := []string{"start", c.plane.Name, "--nodes", strconv.Itoa(nodes)}
	if port != 0 {
		args = append(args, "--port", strconv.Itoa(port))
	}
	if _, err := c.run(ctx, args...); err != nil {
		return ControlPlaneState{}, err
	}
	return c.State(ctx)
}

// State asks how the control plane is. One that was never started has no phase.
func (c *ControlPlane) State(ctx context.Context) (ControlPlaneState, error) {
	if !c.plane.HasControlPlane() {
		return ControlPlaneState{}, nil
	}
	out, err := c.run(ctx, "status", c.plane.Name, "-o", "json")
	var s ControlPlaneState
	if len(out) > 0 && json.Unmarshal(out, &s) == nil {
		// A control plane that is down is an answer, though status exits with
		// an error for it.
		return s, nil
	}
	if err == nil {
		err = fmt.Errorf("localkube status printed %q", out)
	}
	return s, err
}

// Stop stops the control plane and keeps its data.
func (c *ControlPlane) Stop(ctx context.Context) error {
	_, err := c.run(ctx, "stop", c.plane.Name)
	return err
}

// Delete stops the control plane and deletes its data.
func (c *ControlPlane) Delete(ctx context.Context) error {
	_, err := c.run(ctx, "delete", c.plane.Name, "--force")
	return err
}

func (c *ControlPlane) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.executable, append(args, "--root", c.plane.Clusters)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if text := strings.TrimSpace(stderr.String()); text != "" {
		lines := strings.Split(text, "\n")
		err = errors.New(strings.TrimPrefix(lines[len(lines)-1], "Error: "))
	}
	return stdout.Bytes(), &failure.Error{Op: args[0], Object: "control plane " + c.plane.Name, Kind: failure.Unavailable, Err: err}
}
