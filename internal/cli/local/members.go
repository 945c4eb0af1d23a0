package local

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/localkube"
)

// Provider is the plane's local provider.
func (p *Plane) Provider() background.Service { return localprovider.ProviderIn(p.Dir) }

// Members is the folder of the control planes that the plane's local provider runs.
func (p *Plane) Members() string { return localprovider.MembersIn(p.Dir) }

// MemberAt finds the control plane in Members whose API server is at an address; empty where none is.
func (p *Plane) MemberAt(ctx context.Context, server string) (name, kubeconfig string, err error) {
	entries, err := os.ReadDir(p.Members())
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", &failure.Error{Op: "read folder", Object: p.Members(), Kind: failure.Denied, Err: err}
	}
	for _, e := range entries {
		c, err := p.HubControlPlane(e.Name())
		if err != nil {
			return "", "", err
		}
		state, err := c.State(ctx)
		if err != nil {
			return "", "", err
		}
		if state.Running() && state.Server == server {
			return e.Name(), state.Kubeconfig, nil
		}
	}
	return "", "", nil
}

// Agent is the agent of a member.
func (p *Plane) Agent(member string) background.Service {
	return localprovider.AgentOf(p.Members(), member)
}

// StopMembers stops the control planes in Members and those that they made, with what a provider left there which was killed; without
// keep their data is deleted. It returns how many there were. The provider is to be stopped before.
func (p *Plane) StopMembers(ctx context.Context, keep bool) (int, error) {
	if entries, err := os.ReadDir(p.Members()); err == nil && len(entries) == 0 || os.IsNotExist(err) {
		return 0, nil // localkube is not needed, and may not be there
	}
	executable, err := localkube.Find()
	if err != nil {
		return 0, err
	}
	return localprovider.Stop(ctx, executable, p.Members(), keep)
}
