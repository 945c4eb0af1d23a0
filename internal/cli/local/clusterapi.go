package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
)

// ClusterAPI is Cluster API's own manager, which runs beside a plane's embedded control plane. It is
// not for existing clusters: their API servers may be elsewhere, and could not call its webhooks.
type ClusterAPI struct {
	background.Service
	plane      *Plane
	manager    install.Manager
	executable string
}

// clusterAPIStart bounds the start of the manager, which takes a second or two.
const clusterAPIStart = time.Minute

// ClusterAPIService is the process of Cluster API's manager, to be asked and stopped.
func (p *Plane) ClusterAPIService() background.Service { return p.service("capi") }

// ClusterAPI finds the executable of Cluster API's manager: $BOWLINE_CAPI_MANAGER, else beside this
// program or in the folder tools there, else on the PATH.
func (p *Plane) ClusterAPI() (*ClusterAPI, error) {
	manager, err := install.CoreManager()
	if err != nil {
		return nil, err
	}
	c := &ClusterAPI{Service: p.ClusterAPIService(), plane: p, manager: manager, executable: os.Getenv("BOWLINE_CAPI_MANAGER")}
	if c.executable != "" {
		return c, nil
	}
	if self, err := os.Executable(); err == nil {
		for _, dir := range []string{".", "tools"} {
			beside := filepath.Join(filepath.Dir(self), dir, manager.Name)
			if _, err := os.Stat(beside); err == nil {
				c.executable = beside
				return c, nil
			}
		}
	}
	c.executable, err = exec.LookPath(manager.Name)
	if err != nil {
		return nil, &failure.Error{Op: "find", Object: manager.Name, Kind: failure.NotFound,
			Err:    errors.New("it is neither beside this program nor on the PATH"),
			Remedy: "build it with `make bin/tools/" + manager.Name + "`, or set BOWLINE_CAPI_MANAGER"}
	}
	return c, nil
}

// Start installs Cluster API on the control plane of cfg, whose kubeconfig is at that path, starts
// the manager and returns when it is ready. It reports false, and does nothing, where it runs
// already.
func (c *ClusterAPI) Start(ctx context.Context, cfg *rest.Config, kubeconfig string) (bool, error) {
	if _, running := c.Running(); running {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterAPIStart)
	defer cancel()
	webhooks, err := FreeAddr(ctx)
	if err != nil {
		return false, err
	}
	health, err := FreeAddr(ctx)
	if err != nil {
		return false, err
	}
	server, err := install.NewServer(c.plane.Path("capi-webhooks"), webhooks, time.Now())
	if err != nil {
		return false, err
	}
	if err := c.manager.Components.Install(ctx, cfg, server); err != nil {
		return false, err
	}
	arguments, err := c.manager.Arguments(kubeconfig, server, health)
	if err != nil {
		return false, err
	}
	ended, err := c.Service.Start(c.executable, arguments, c.manager.Environment)
	if err != nil {
		return false, err
	}
	if err := c.manager.Ready(ctx, health, ended); err != nil {
		return true, &failure.Error{Kind: failure.KindOf(err), Err: err, Remedy: "see why in " + c.Log()}
	}
	return true, nil
}
