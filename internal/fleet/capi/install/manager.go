package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Manager is the manager of a provider: the controllers and webhooks of its kinds in a process.
type Manager struct {
	// Name is that of its executable, as the Makefile builds it.
	Name string
	// Components are what it needs on the API server before it is started.
	Components Components
	// Environment is what its process needs besides that of its parent, as "name=value".
	Environment []string

	gates string
}

// Cluster API's own features: topologies and pools of machines. Without the limit, an object is
// looked at as soon as something happened to it and not at most once a second; that limit is
// for hubs that share a cluster with others.
const coreGates = "ClusterTopology=true,MachinePool=true,ReconcilerRateLimiting=false"

// What clusters of EKS are made of. Cluster API's own features stand among those of a provider.
const awsGates = "EKS=true,EKSFargate=true,MachinePool=true,ReconcilerRateLimiting=false"

// CoreManager returns the manager of Cluster API itself.
func CoreManager() (Manager, error) {
	components, err := Core()
	return Manager{Name: "capi-manager", Components: components, gates: coreGates}, err
}

// AWSManager returns the manager of the provider for AWS, with its components read from r. On
// its hub, Cluster API itself has to be installed before it starts. It is told not to look for
// credentials at the metadata service of a virtual machine, for it may not run on one.
func AWSManager(r io.Reader) (Manager, error) {
	components, err := Read(r)
	return Manager{Name: "capa-manager", Components: components, gates: awsGates,
		Environment: []string{"AWS_EC2_METADATA_DISABLED=true"}}, err
}

// Arguments returns the arguments with which to start the manager: it works on the cluster of
// the kubeconfig at that path, serves webhooks at s, and answers at health, an address with
// port, whether it is ready. It is the only one for its cluster and serves no metrics.
func (m Manager) Arguments(kubeconfig string, s Server, health string) ([]string, error) {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, &failure.Error{Op: "serve webhooks at", Kind: failure.Invalid, Object: s.Addr, Err: err}
	}
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--webhook-port=" + port,
		"--webhook-cert-dir=" + s.Dir,
		"--health-addr=" + health,
		"--diagnostics-address=0",
		"--leader-elect=false",
		"--feature-gates=" + m.gates,
	}, nil
}

// readyInterval is how often a manager that starts is asked: there is nothing to wait for but its
// answer, and it takes a second or two.
const readyInterval = 50 * time.Millisecond

// Ready returns when the manager that answers at health is ready: it serves its webhooks. It gives up
// when ctx ends, or when the channel ended is closed, because the process is no more. Its log says why;
// where that is, the caller knows.
func (m Manager) Ready(ctx context.Context, health string, ended <-chan struct{}) error {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		err := ask(ctx, "http://"+health+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return &failure.Error{Op: "wait for", Kind: failure.Timeout, Object: m.Name, Err: fmt.Errorf("it is not ready: %w", err)}
		case <-ended:
			return &failure.Error{Op: "start", Kind: failure.Unavailable, Object: m.Name, Err: errors.New("it ended before it was ready")}
		case <-tick.C:
		}
	}
}

// askTimeout bounds one question, to an address on the same machine.
const askTimeout = 5 * time.Second

func ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A proxy for the network has no business on this machine, and no connection is kept for later.
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}
