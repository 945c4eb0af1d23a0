// Package localkube is the room of embedded control planes as seen from outside: it finds the
// localkube executable and tells it what to start, stop and delete. What a control plane is for is its
// callers' business.
package localkube

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

// Find finds the executable: $BOWLINE_LOCALKUBE, else beside this program, else on the PATH.
func Find() (string, error) {
	if path := os.Getenv("BOWLINE_LOCALKUBE"); path != "" {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "localkube")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("localkube")
	if err != nil {
		return "", &failure.Error{Op: "find", Object: "localkube", Kind: failure.NotFound,
			Err:    errors.New("it is neither beside this program nor on the PATH"),
			Remedy: "build it with `make build`, set BOWLINE_LOCALKUBE, or use an existing cluster with --kubeconfig"}
	}
	return path, nil
}

// ControlPlane is one control plane, whether it exists or not.
type ControlPlane struct {
	// Executable is that of localkube.
	Executable string
	// Root is the folder of all control planes that belong together, and Name the one that this is.
	Root, Name string
}

// Options are the choices of a start. What is not chosen is as it was before.
type Options struct {
	Nodes int
	// Port is that of the API server; 0 means a free one, or the one it had before.
	Port int
	// Emulate is the minor version to behave like; nil is as before, and "" that of the build.
	Emulate *string
	// Unsynced leaves it to the operating system when to write to disk: for tests.
	Unsynced bool
}

// State is what localkube says of a control plane.
type State struct {
	Phase      string `json:"phase"`
	PID        int    `json:"pid"`
	Server     string `json:"server"`
	Kubeconfig string `json:"kubeconfig"`
	Log        string `json:"log"`
	// Emulate is the minor version that it behaves like; empty is that of the build.
	Emulate string `json:"emulate"`
}

// Running reports whether the control plane runs.
func (s State) Running() bool { return s.Phase == "running" }

// Exists reports whether the control plane, or its data, is there.
func (c ControlPlane) Exists() bool {
	_, err := os.Stat(filepath.Join(c.Root, c.Name, "cluster.json"))
	return err == nil
}

// Clear removes what a control plane that never came to be left.
func (c ControlPlane) Clear() error {
	if c.Exists() {
		return nil
	}
	dir := filepath.Join(c.Root, c.Name)
	if err := os.RemoveAll(dir); err != nil {
		return &failure.Error{Op: "remove", Object: dir, Kind: failure.Denied, Err: err}
	}
	return nil
}

// Start starts the control plane, or finds it running, and returns when it is ready.
func (c ControlPlane) Start(ctx context.Context, o Options) (State, error) {
	args := []string{"start", c.Name, "--nodes", strconv.Itoa(o.Nodes)}
	if o.Port != 0 {
		args = append(args, "--port", strconv.Itoa(o.Port))
	}
	if o.Emulate != nil {
		args = append(args, "--emulate="+*o.Emulate)
	}
	if o.Unsynced {
		args = append(args, "--no-fsync")
	}
	if _, err := c.run(ctx, args...); err != nil {
		return State{}, err
	}
	return c.State(ctx)
}

// State asks how the control plane is. One that was never started has no phase.
func (c ControlPlane) State(ctx context.Context) (State, error) {
	if !c.Exists() {
		return State{}, nil
	}
	out, err := c.run(ctx, "status", c.Name, "-o", "json")
	var s State
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

// Version returns the version of Kubernetes that the executable is built from, such as v1.36.3.
func (c ControlPlane) Version(ctx context.Context) (string, error) {
	out, err := c.run(ctx, "version")
	return strings.TrimSpace(string(out)), err
}

// Stop stops the control plane and keeps its data.
func (c ControlPlane) Stop(ctx context.Context) error {
	_, err := c.run(ctx, "stop", c.Name)
	return err
}

// Delete stops the control plane and deletes its data.
func (c ControlPlane) Delete(ctx context.Context) error {
	_, err := c.run(ctx, "delete", c.Name, "--force")
	return err
}

func (c ControlPlane) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Executable, append(args, "--root", c.Root)...)
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
	return stdout.Bytes(), &failure.Error{Op: args[0], Object: "control plane " + c.Name, Kind: failure.Unavailable, Err: err}
}
