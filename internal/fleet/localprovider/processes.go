package localprovider

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
)

// Processes are control planes with what runs in pods elsewhere: no container runs on simulated nodes, so it is run as
// processes of this machine, which are started again when they end, and ended with the control plane or the provider.
//
// For each control plane that has the Deployment of an agent it is the agent: with the Deployment's arguments, and as administrator of
// the control plane, which is what its service account is. The pod of the Deployment is one that is said to run.
//
// For that of a management cluster it is also Cluster API's manager, and a local provider, whose control planes are in a
// folder of this one. They are there as long as the control plane is.
type Processes struct {
	ControlPlanes
	// Executable is the program of which `agent` and `local-provider` are commands: that of the hub, whatever image
	// the Deployment names.
	Executable string
	// Localkube is the executable of control planes, for those that a management cluster leaves when it is deleted.
	Localkube string
	// Root is the folder of all control planes; see AgentOf and HubOf for what is kept in that of each.
	Root string
	// Clock measures how long it takes until a process is started again; nil means that of the machine.
	Clock  clock.Clock
	Logger logr.Logger

	mu     sync.Mutex
	posts  map[string]*post
	closed bool
}

// Ensure implements ControlPlanes.
func (p *Processes) Ensure(ctx context.Context, name string, want Wanted) (ControlPlane, error) {
	plane, err := p.ControlPlanes.Ensure(ctx, name, want)
	if err != nil {
		return plane, err
	}
	return plane, p.man(name, plane.Kubeconfig, want.Management) //nolint:contextcheck // processes run on when this look is over
}

// Delete implements ControlPlanes.
func (p *Processes) Delete(ctx context.Context, name string) error {
	p.abandon(name)
	// What a provider left behind which was killed, and clusters that nobody has let go of.
	if _, err := stopProcesses(ctx, p.Localkube, p.Root, name, false); err != nil {
		return err
	}
	return p.ControlPlanes.Delete(ctx, name)
}

// Close ends all processes, and returns when they have ended. None is started after that.
func (p *Processes) Close() {
	p.mu.Lock()
	p.closed = true
	posts := p.posts
	p.posts = nil
	p.mu.Unlock()
	var ending sync.WaitGroup
	for _, at := range posts {
		ending.Go(at.end)
	}
	ending.Wait()
}

// man sees to it that somebody looks after the processes of a control plane, by the newest kubeconfig.
func (p *Processes) man(name string, kubeconfig []byte, management bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.posts[name]
	if p.closed || before != nil && bytes.Equal(before.kubeconfig, kubeconfig) && before.management == management {
		return nil
	}
	at, err := p.post(name, kubeconfig, management)
	if err != nil {
		return err
	}
	if p.posts == nil {
		p.posts = map[string]*post{}
	}
	p.posts[name] = at
	go at.run(before)
	return nil
}

// post makes one, of which nothing runs yet.
func (p *Processes) post(name string, kubeconfig []byte, management bool) (*post, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, &failure.Error{Op: "read the kubeconfig of", Object: "control plane " + name, Kind: failure.Invalid, Err: err}
	}
	at := newPost(kubeconfig, management)
	m := maker{Processes: p, post: at, config: config, name: name}
	if err := m.agent(); err != nil || !management {
		return at, err
	}
	return at, m.hub()
}

// abandon ends the processes of a control plane.
func (p *Processes) abandon(name string) {
	p.mu.Lock()
	at := p.posts[name]
	delete(p.posts, name)
	p.mu.Unlock()
	if at != nil {
		at.end()
	}
}

// AgentOf is the agent's process of a control plane, whoever started it.
func AgentOf(root, name string) background.Service {
	return background.Service{Dir: filepath.Join(root, name, "agent"), Name: "agent"}
}

// Hub is what runs for the control plane of a management cluster, whoever started it.
type Hub struct {
	// Dir holds the files of both processes.
	Dir string
	// ClusterAPI is its manager, and Provider the local provider.
	ClusterAPI, Provider background.Service
}

// HubOf names what runs for a control plane where that is one of a management cluster.
func HubOf(root, name string) Hub {
	dir := filepath.Join(root, name, "hub")
	return Hub{Dir: dir, ClusterAPI: background.Service{Dir: dir, Name: "capi"}, Provider: ProviderIn(dir)}
}

// Root is the folder of the control planes of the provider.
func (h Hub) Root() string { return MembersIn(h.Dir) }

// ProviderIn is the process of the local provider whose files are in a folder. It has processes of its own to end, and
// providers among them that have to.
func ProviderIn(dir string) background.Service {
	return background.Service{Dir: dir, Name: "provider", Grace: providerGrace}
}

// MembersIn is the folder of the control planes of that provider.
func MembersIn(dir string) string { return filepath.Join(dir, "members") }

// clusterAPI finds what a management cluster needs, which is told on its control plane where it is not there.
func clusterAPI(service background.Service) (install.Process, error) {
	manager, err := install.CoreManager()
	if err != nil {
		return install.Process{}, err
	}
	executable, err := manager.Find()
	return install.Process{Service: service, Manager: manager, Executable: executable}, err
}

func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &failure.Error{Op: "make folder", Object: dir, Kind: failure.Denied, Err: err}
	}
	return nil
}
