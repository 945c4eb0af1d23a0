package cluster

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/localkube/internal/controlplane"
)

// Phase is how a cluster is.
type Phase string

// The phases.
const (
	Running   Phase = "running"   // and the API server is ready
	Unhealthy Phase = "unhealthy" // its process runs, but the API server is not ready: starting, stopping or broken
	Stopped   Phase = "stopped"
)

// Status is what can be said about a cluster from outside.
type Status struct {
	Name       string   `json:"name"`
	Phase      Phase    `json:"phase"`
	Reason     string   `json:"reason,omitempty"` // why it is unhealthy
	PID        int      `json:"pid,omitempty"`
	Server     string   `json:"server"`
	Kubeconfig string   `json:"kubeconfig"`
	Components []string `json:"components"`
	Nodes      int      `json:"nodes"`
	Emulate    string   `json:"emulate,omitempty"` // minor version that it behaves like, when that is not its own
	Dir        string   `json:"dir"`
	Log        string   `json:"log"`
}

// Status looks at the cluster.
func (c Cluster) Status(ctx context.Context) (Status, error) {
	state, err := c.State()
	if err != nil {
		return Status{}, err
	}
	status := Status{
		Name:       c.Name,
		Phase:      Stopped,
		Server:     fmt.Sprintf("https://127.0.0.1:%d", state.Port),
		Kubeconfig: c.Kubeconfig(),
		Components: state.Components,
		Emulate:    state.Emulate,
		Dir:        c.Dir,
		Log:        c.Log(),
	}
	if state.runs(ComponentNodes) {
		status.Nodes = state.Nodes
	}
	pid, running := c.Running()
	if !running {
		return status, nil
	}
	status.PID, status.Phase = pid, Running
	if healthy, why := c.healthy(ctx); !healthy {
		status.Phase, status.Reason = Unhealthy, why.Error()
	}
	return status, nil
}

// healthy asks the API server, and returns why it is not healthy.
func (c Cluster) healthy(ctx context.Context) (bool, error) {
	config, err := controlplane.ClientFromKubeconfig(c.Kubeconfig())
	if err != nil {
		return false, err
	}
	config.Timeout = 5 * time.Second
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	if err := controlplane.Ready(ctx, client, config.Host); err != nil {
		return false, err
	}
	return true, nil
}
