package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/localkube"
)

// Provider is the plane's local provider.
func (p *Plane) Provider() background.Service { return p.service("provider") }

// Members is the folder of the control planes that the plane's local provider runs.
func (p *Plane) Members() string { return p.Path("members") }

// StopMembers stops the control planes in Members, and the agents that a provider left there which was killed; without
// keep their data is deleted. It returns how many there were. The provider is to be stopped before.
func (p *Plane) StopMembers(ctx context.Context, keep bool) (int, error) {
	entries, err := os.ReadDir(p.Members())
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, &failure.Error{Op: "read folder", Object: p.Members(), Kind: failure.Denied, Err: err}
	}
	executable, err := localkube.Find()
	if err != nil {
		return 0, err
	}
	errs := make([]error, len(entries))
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() {
			errs[i] = p.stopMember(ctx, localkube.ControlPlane{Executable: executable, Root: p.Members(), Name: e.Name()}, keep)
		})
	}
	wg.Wait()
	return len(entries), errors.Join(errs...)
}

func (p *Plane) stopMember(ctx context.Context, c localkube.ControlPlane, keep bool) error {
	if _, err := localprovider.AgentOf(c.Root, c.Name).Stop(ctx); err != nil {
		return err
	}
	switch {
	case !c.Exists() && keep:
		return nil
	case !c.Exists():
		return c.Clear()
	case keep:
		return c.Stop(ctx)
	default:
		return c.Delete(ctx)
	}
}
