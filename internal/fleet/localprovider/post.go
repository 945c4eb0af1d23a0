package localprovider

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
)

// providerGrace is how long a provider may take to end.
const providerGrace = time.Minute

// post is what looks after the processes of one control plane.
type post struct {
	kubeconfig []byte
	management bool
	wardens    []*warden // in the order in which they begin
	left       chan struct{}
	leave      context.CancelFunc
	going      context.Context //nolint:containedctx // it is the life of the post, and not that of a call
}

func newPost(kubeconfig []byte, management bool) *post {
	ctx, leave := context.WithCancel(context.Background())
	return &post{kubeconfig: kubeconfig, management: management, left: make(chan struct{}), leave: leave, going: ctx}
}

// run works until end is called. What was there before ends first.
func (p *post) run(before *post) {
	defer close(p.left)
	if before != nil {
		before.end()
	}
	ends := make([]func(), 0, len(p.wardens))
	for _, w := range p.wardens {
		ctx, cancel := context.WithCancel(context.WithoutCancel(p.going))
		left := make(chan struct{})
		go func() { defer close(left); w.run(ctx) }()
		ends = append(ends, func() { cancel(); <-left })
	}
	<-p.going.Done()
	for _, end := range slices.Backward(ends) {
		end()
	}
}

// end ends all processes, those that were started last first, and returns when they have ended.
func (p *post) end() {
	p.leave()
	<-p.left
}

// maker puts the wardens of a post together.
type maker struct {
	*Processes
	post   *post
	config *rest.Config
	name   string
}

func (m maker) warden(title string, s background.Service) *warden {
	w := &warden{title: title, service: s, clock: m.Clock, log: m.Logger.WithValues("cluster", m.name, "process", title), up: make(chan struct{})}
	if w.clock == nil {
		w.clock = clock.RealClock{}
	}
	m.post.wardens = append(m.post.wardens, w)
	return w
}

// folder makes one with the kubeconfig in it, and returns the path of that.
func (m maker) folder(dir string) (string, error) {
	if err := makeFolder(dir); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "kubeconfig")
	if err := background.WriteFile(file, m.post.kubeconfig); err != nil {
		return "", &failure.Error{Op: "write", Object: file, Kind: failure.Denied, Err: err}
	}
	return file, nil
}

// agent adds the agent, which runs as its Deployment says.
func (m maker) agent() error {
	s := AgentOf(m.Root, m.name)
	kubeconfig, err := m.folder(s.Dir)
	if err != nil {
		return err
	}
	// The last one of a flag counts.
	local := []string{"--kubeconfig=" + kubeconfig, "--data-dir=" + filepath.Join(s.Dir, "data"),
		"--metrics-addr=0", "--health-addr=0", "--storage-addr=127.0.0.1:0"}
	if m.post.management { // its API server is here, too, and finds it
		local = append(local, "--webhook-addr=127.0.0.1:0")
	}
	w := m.warden("agent", s)
	w.watch = func(ctx context.Context, wishes chan []string) error { return watchDeployment(ctx, m.config, wishes) }
	w.launch = func(_ context.Context, arguments []string) (<-chan struct{}, error) {
		return s.Start(m.Executable, slices.Concat(arguments, local), []string{"RUNTIME_NAMESPACE=" + fleetv1.MemberNamespace})
	}
	return nil
}

// hub adds what runs for a management cluster: Cluster API's manager, and then a provider, which needs the definitions that come
// with the manager.
func (m maker) hub() error {
	h := HubOf(m.Root, m.name)
	kubeconfig, err := m.folder(h.Dir)
	if err != nil {
		return err
	}
	if err := makeFolder(h.Root()); err != nil {
		return err
	}
	manager, err := clusterAPI(h.ClusterAPI)
	if err != nil {
		return err
	}
	capi := m.warden("Cluster API", h.ClusterAPI)
	capi.launch = func(ctx context.Context, _ []string) (<-chan struct{}, error) {
		if err := m.define(ctx); err != nil {
			return nil, err
		}
		return manager.Start(ctx, m.config, kubeconfig)
	}
	provider := m.warden("provider", h.Provider)
	provider.after = capi.up
	provider.launch = func(context.Context, []string) (<-chan struct{}, error) {
		return h.Provider.Start(m.Executable, []string{"local-provider", "--root=" + h.Root(), "--kubeconfig=" + kubeconfig}, nil)
	}
	return nil
}

// define installs the definitions of the local provider.
func (m maker) define(ctx context.Context) error {
	all, err := crds.Local()
	if err != nil {
		return err
	}
	if err := crds.Install(ctx, m.config, all); err != nil {
		return fmt.Errorf("install the definitions of the local provider: %w", err)
	}
	return nil
}
