package localprovider

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Agents are control planes with the agents that are installed on them. No container runs on simulated nodes: the pod
// of an agent's Deployment is one that is said to run. For each control plane that has the Deployment, the agent is run as
// a process of this machine: with its arguments, and as administrator of its control plane, which is what its service account is. It
// is started again when it ends, and ended with the Deployment, the control plane or the provider.
type Agents struct {
	ControlPlanes
	// Executable is the program of which `agent` is a command: that of the hub, whatever image the Deployment names.
	Executable string
	// Root is the folder of all control planes; an agent's files are in the folder "agent" of its own.
	Root string
	// Clock measures how long it takes until an agent is started again; nil means that of the machine.
	Clock  clock.Clock
	Logger logr.Logger

	mu     sync.Mutex
	posts  map[string]*post
	closed bool
}

// post is what looks after the agent of one control plane.
type post struct {
	kubeconfig []byte
	leave      context.CancelFunc
	left       chan struct{}
}

// Ensure implements ControlPlanes.
func (a *Agents) Ensure(ctx context.Context, name, version string) (ControlPlane, error) {
	plane, err := a.ControlPlanes.Ensure(ctx, name, version)
	if err != nil {
		return plane, err
	}
	return plane, a.man(name, plane.Kubeconfig) //nolint:contextcheck // an agent runs on when this look is over
}

// Delete implements ControlPlanes.
func (a *Agents) Delete(ctx context.Context, name string) error {
	a.abandon(name)
	// One that a provider left behind which was killed.
	if _, err := AgentOf(a.Root, name).Stop(ctx); err != nil {
		return err
	}
	return a.ControlPlanes.Delete(ctx, name)
}

// Close ends all agents, and returns when they have ended. None is started after that.
func (a *Agents) Close() {
	a.mu.Lock()
	a.closed = true
	posts := a.posts
	a.posts = nil
	a.mu.Unlock()
	for _, p := range posts {
		p.leave()
	}
	for _, p := range posts {
		<-p.left
	}
}

// AgentOf is the agent's process of a control plane, whoever started it.
func AgentOf(root, name string) background.Service {
	return background.Service{Dir: filepath.Join(root, name, "agent"), Name: "agent"}
}

// man sees to it that somebody looks after the agent of a control plane, by the newest kubeconfig.
func (a *Agents) man(name string, kubeconfig []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.posts[name]
	if a.closed || before != nil && bytes.Equal(before.kubeconfig, kubeconfig) {
		return nil
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return &failure.Error{Op: "read the kubeconfig of", Object: "control plane " + name, Kind: failure.Invalid, Err: err}
	}
	service := AgentOf(a.Root, name)
	if err := os.MkdirAll(service.Dir, 0o700); err != nil {
		return &failure.Error{Op: "make folder", Object: service.Dir, Kind: failure.Denied, Err: err}
	}
	w := &warden{service: service, executable: a.Executable, clock: a.Clock, log: a.Logger.WithValues("cluster", name)}
	if w.clock == nil {
		w.clock = clock.RealClock{}
	}
	if err := w.writeKubeconfig(kubeconfig); err != nil {
		return err
	}
	ctx, leave := context.WithCancel(context.Background())
	p := &post{kubeconfig: kubeconfig, leave: leave, left: make(chan struct{})}
	if a.posts == nil {
		a.posts = map[string]*post{}
	}
	a.posts[name] = p
	go func() {
		defer close(p.left)
		if before != nil {
			before.leave()
			<-before.left
		}
		w.run(ctx, config)
	}()
	return nil
}

// abandon ends the agent of a control plane.
func (a *Agents) abandon(name string) {
	a.mu.Lock()
	p := a.posts[name]
	delete(a.posts, name)
	a.mu.Unlock()
	if p != nil {
		p.leave()
		<-p.left
	}
}

// errEnded is said of an agent that ended although it is to run.
var errEnded = errors.New("the agent ended")
