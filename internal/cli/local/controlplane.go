package local

import "github.com/bowline-dev/bowline/internal/localkube"

// ControlPlane is the plane's embedded control plane, to be started, asked and stopped.
func (p *Plane) ControlPlane() (localkube.ControlPlane, error) {
	executable, err := localkube.Find()
	if err != nil {
		return localkube.ControlPlane{}, err
	}
	c := p.controlPlane()
	c.Executable = executable
	return c, nil
}

// HubControlPlane is the control plane that is the plane's hub: the plane's own, or the member that it was moved into.
func (p *Plane) HubControlPlane(hub string) (localkube.ControlPlane, error) {
	c, err := p.ControlPlane()
	if err == nil && hub != "" {
		c.Root, c.Name = p.Members(), hub
	}
	return c, err
}

// HasControlPlane reports whether the plane has an embedded control plane, or
// its data, on this machine.
func (p *Plane) HasControlPlane() bool { return p.controlPlane().Exists() }

// ClearControlPlane removes what a control plane that never came to be left.
func (p *Plane) ClearControlPlane() error { return p.controlPlane().Clear() }

func (p *Plane) controlPlane() localkube.ControlPlane {
	return localkube.ControlPlane{Root: p.Clusters, Name: p.Name}
}
