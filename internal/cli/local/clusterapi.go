package local

import (
	"context"

	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
)

// ClusterAPI is Cluster API's own manager, which runs beside a plane's embedded control plane. It is
// not for existing clusters: their API servers may be elsewhere, and could not call its webhooks.
type ClusterAPI struct{ install.Process }

// ClusterAPIService is the process of Cluster API's manager, to be asked and stopped. hub is the member that it works on, and empty for
// the plane's own control plane: while a plane moves there are two.
func (p *Plane) ClusterAPIService(hub string) background.Service {
	return p.service(ofHub("capi", hub))
}

func ofHub(name, hub string) string {
	if hub == "" {
		return name
	}
	return name + "-" + hub
}

// ClusterAPI finds the executable of Cluster API's manager, for the hub that ClusterAPIService tells of.
func (p *Plane) ClusterAPI(hub string) (*ClusterAPI, error) {
	manager, err := install.CoreManager()
	if err != nil {
		return nil, err
	}
	executable, err := manager.Find()
	if err != nil {
		return nil, err
	}
	return &ClusterAPI{install.Process{Service: p.ClusterAPIService(hub), Manager: manager, Executable: executable}}, nil
}

// Start installs Cluster API on the control plane of cfg, whose kubeconfig is at that path, starts
// the manager and returns when it is ready. It reports false, and does nothing, where it runs
// already.
func (c *ClusterAPI) Start(ctx context.Context, cfg *rest.Config, kubeconfig string) (bool, error) {
	if _, running := c.Running(); running {
		return false, nil
	}
	_, err := c.Process.Start(ctx, cfg, kubeconfig)
	return err == nil, err
}
