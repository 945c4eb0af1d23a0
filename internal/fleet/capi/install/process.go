package install

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Process is a manager in the background, beside a control plane of the same machine. It is not for API servers that
// may be elsewhere: they could not call its webhooks.
type Process struct {
	background.Service
	Manager Manager
	// Executable is that of the manager; see Manager.Find.
	Executable string
}

// processStart bounds the start of a manager, which takes a second or two.
const processStart = time.Minute

// Find finds the executable: $BOWLINE_CAPI_MANAGER for the manager of that name, else beside this program or in the
// folder tools there, else on the PATH.
func (m Manager) Find() (string, error) {
	variable := "BOWLINE_" + strings.ToUpper(strings.ReplaceAll(m.Name, "-", "_"))
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		for _, dir := range []string{".", "tools"} {
			beside := filepath.Join(filepath.Dir(self), dir, m.Name)
			if _, err := os.Stat(beside); err == nil {
				return beside, nil
			}
		}
	}
	path, err := exec.LookPath(m.Name)
	if err != nil {
		return "", &failure.Error{Op: "find", Object: m.Name, Kind: failure.NotFound,
			Err:    errors.New("it is neither beside this program nor on the PATH"),
			Remedy: "build it with `make bin/tools/" + m.Name + "`, or set " + variable}
	}
	return path, nil
}

// Start installs the manager's components on the control plane of cfg, whose kubeconfig is at that path, starts the
// manager and returns when it is ready. The channel is closed when the process ends. One that does not get ready in time is
// left running, and its channel is returned with the error.
func (p Process) Start(ctx context.Context, cfg *rest.Config, kubeconfig string) (<-chan struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, processStart)
	defer cancel()
	webhooks, err := background.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	health, err := background.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	server, err := NewServer(filepath.Join(p.Dir, p.Name+"-webhooks"), webhooks, time.Now())
	if err != nil {
		return nil, err
	}
	if err := p.Manager.Components.Install(ctx, cfg, server); err != nil {
		return nil, err
	}
	arguments, err := p.Manager.Arguments(kubeconfig, server, health)
	if err != nil {
		return nil, err
	}
	ended, err := p.Service.Start(p.Executable, arguments, p.Manager.Environment)
	if err != nil {
		return nil, err
	}
	if err := p.Manager.Ready(ctx, health, ended); err != nil {
		return ended, &failure.Error{Kind: failure.KindOf(err), Err: err, Remedy: "see why in " + p.Log()}
	}
	return ended, nil
}
