package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/bowline-dev/bowline/localkube/internal/controlplane"
	"github.com/bowline-dev/bowline/localkube/internal/nodes"
	"github.com/bowline-dev/bowline/localkube/internal/pki"
)

// Settings are the choices of one start. What is not chosen is as it was the last time.
type Settings struct {
	Port       *int     // nil: as before; 0: choose a free one
	Components []string // nil: as before, all at first
	Nodes      *int     // nil: as before, one at first
	Emulate    *string  // nil: as before; "": the version of this build
	NoFsync    *bool    // nil: as before, false at first
}

// changes says whether a start with these settings would make another cluster of the state.
func (s Settings) changes(state State) bool {
	return s.Port != nil && *s.Port != 0 && *s.Port != state.Port ||
		s.Nodes != nil && *s.Nodes != state.Nodes ||
		s.Emulate != nil && *s.Emulate != state.Emulate ||
		s.NoFsync != nil && *s.NoFsync != state.NoFsync ||
		s.Components != nil && !slices.Equal(s.Components, state.Components)
}

// Serve runs the cluster in this process until ctx ends or a component fails. It calls ready
// once the cluster is usable, which must be within timeout. From its start to its return,
// standard error of the process goes to the log of the cluster: the components write there, and
// so do panics. A second Serve of a running cluster returns ErrRunning and touches nothing.
func (c Cluster) Serve(ctx context.Context, settings Settings, timeout time.Duration, ready func() error) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("cluster %q: make its folder: %w", c.Name, err)
	}
	held, err := c.acquire()
	if err != nil {
		return err
	}
	defer held.release()
	state, listener, err := c.settle(ctx, settings)
	if err != nil {
		return err
	}
	restore, err := c.redirectStderr()
	if err != nil {
		_ = listener.Close()
		return err
	}
	defer restore()
	if err := c.run(ctx, state, listener, timeout, ready); err != nil {
		return fmt.Errorf("cluster %q: %w (log: %s)", c.Name, err, c.Log())
	}
	return nil
}

// settle combines what was chosen with what is remembered, opens the port, and remembers both.
func (c Cluster) settle(ctx context.Context, settings Settings) (State, net.Listener, error) {
	state := State{Name: c.Name, Components: AllComponents(), Nodes: 1}
	if c.Exists() {
		remembered, err := c.State()
		if err != nil {
			return state, nil, err
		}
		state = remembered
	}
	if settings.Components != nil {
		state.Components = settings.Components
	}
	if settings.Nodes != nil {
		state.Nodes = *settings.Nodes
	}
	if settings.Emulate != nil {
		state.Emulate = *settings.Emulate
	}
	if settings.NoFsync != nil {
		state.NoFsync = *settings.NoFsync
	}
	if settings.Port != nil {
		state.Port = *settings.Port
	}
	listener, port, err := c.listen(ctx, state.Port)
	if err != nil {
		return state, nil, err
	}
	state.Port = port
	if err := c.saveState(state); err != nil {
		_ = listener.Close()
		return state, nil, err
	}
	return state, listener, nil
}

// run starts everything, says so, waits, and stops everything.
func (c Cluster) run(ctx context.Context, state State, listener net.Listener, timeout time.Duration, ready func() error) error {
	started := time.Now()
	starting, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not ready after %s", timeout))
	defer cancel()
	keys, err := pki.Ensure(c.Dir+"/pki", time.Now)
	if err != nil {
		_ = listener.Close()
		return err
	}
	server := "https://" + listener.Addr().String()
	if err := keys.WriteKubeconfig(c.Kubeconfig(), c.Name, server, pki.Admin); err != nil {
		_ = listener.Close()
		return err
	}
	plane, err := controlplane.Start(starting, controlplane.Config{
		Name: c.Name, Dir: c.Dir, Keys: keys, Listener: listener,
		ControllerManager: state.runs(ComponentControllerManager),
		Scheduler:         state.runs(ComponentScheduler),
		UnsafeNoFsync:     state.NoFsync,
		Emulate:           state.Emulate,
	})
	if err != nil {
		return err
	}
	defer plane.Stop()
	if state.runs(ComponentNodes) {
		lifetime, stopNodes := context.WithCancel(context.WithoutCancel(ctx))
		defer stopNodes()
		if err := nodes.Start(lifetime, plane.ClientConfig(pki.Nodes), state.Nodes); err != nil {
			return err
		}
	}
	if err := waitUsable(starting, plane, state); err != nil {
		return err
	}
	klog.InfoS("The cluster is ready", "cluster", c.Name, "server", server, "after", time.Since(started))
	if err := ready(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-plane.Failed():
		return err
	}
}
