package cli

import (
	"context"

	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/cli/local"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/pivot"
)

// planePivot moves a plane of this machine: it stays the same plane, with its folder, its members and its Git server, and one of the
// members is its hub.
type planePivot struct {
	*bringUp
	pivoting *pivoting
	// hub is the member that becomes the hub, and kubeconfig the file that says how to reach it.
	hub, kubeconfig string
	target          *rest.Config
}

// source is how the hub is reached that is left.
func (p *planePivot) source() string {
	if left := p.settings.Left; left != nil {
		return left.Kubeconfig
	}
	return p.settings.Kubeconfig
}

// done reports whether the plane has moved, and no part of it is left to do.
func (p *planePivot) done() bool { return p.settings.Hub != "" && p.settings.Left == nil }

// again answers a call after the plane has moved.
func (p *planePivot) again(ctx context.Context) error {
	printf(p.Out, "the plane has moved already: its hub is %s\n", p.settings.Hub)
	if !p.pivoting.options.deleteSource || !p.plane.HasControlPlane() {
		return nil
	}
	return p.deleteLeft(ctx)
}

// prepare finds the target among the plane's members, and has it serve what the plane does.
func (p *planePivot) prepare(ctx context.Context, target *rest.Config, o *pivot.Options) (err error) {
	p.target = target
	if p.hub, p.kubeconfig, err = p.plane.MemberAt(ctx, target.Host); err != nil {
		return err
	}
	if p.hub == "" {
		return &failure.Error{Op: "pivot to", Object: "FleetCluster/" + o.Cluster.String(), Kind: failure.Unsupported, Err: errNoMember,
			Remedy: "name a cluster that the plane made"}
	}
	o.Local = true
	o.Stopped = func() bool { _, running := p.plane.Engine().Running(); return !running }
	o.Ready, o.Switch = p.serve, p.change
	return nil
}

// serve has the target serve Cluster API and the kinds of clusters of this machine.
func (p *planePivot) serve(ctx context.Context) error {
	kinds, err := crds.Local()
	if err != nil {
		return err
	}
	if err := crds.Install(ctx, p.target, kinds); err != nil {
		return err
	}
	manager, err := p.plane.ClusterAPI(p.hub)
	if err != nil {
		return err
	}
	_, err = manager.Start(ctx, p.target, p.kubeconfig)
	return err
}

// change has the plane's services work for the target. The provider ends with its agents before it begins anew: two would look after the same.
func (p *planePivot) change(ctx context.Context) error {
	if p.settings.Left == nil {
		p.settings.Left = &local.Left{Kubeconfig: p.settings.Kubeconfig, Server: p.settings.Server, Cluster: p.pivoting.cluster.String()}
		p.settings.Hub, p.settings.Kubeconfig, p.settings.Server, p.settings.Context = p.hub, p.kubeconfig, p.target.Host, ""
		p.settings.ProviderProgram = "" // what runs is for the hub that is left
		if err := p.remember(); err != nil {
			return err
		}
	}
	if err := p.connectTo(clusterFlags{kubeconfig: p.settings.Kubeconfig}); err != nil {
		return err
	}
	if _, err := p.startProvider(ctx); err != nil {
		return err
	}
	if p.settings.GitAddr != "" {
		if _, err := p.plane.Git().Stop(ctx); err != nil {
			return err
		}
		if _, err := p.startGit(ctx); err != nil {
			return err
		}
	}
	if _, err := p.plane.Engine().Stop(ctx); err != nil {
		return err
	}
	p.pivoting.moves.Tell("services", "work for the new hub")
	return nil
}

// retire stops what the plane does not need any more.
func (p *planePivot) retire(ctx context.Context) error {
	if _, err := p.plane.ClusterAPIService("").Stop(ctx); err != nil {
		return err
	}
	cp, err := p.plane.ControlPlane()
	if err != nil {
		return err
	}
	if err := cp.Stop(ctx); err != nil {
		return err
	}
	p.settings.Left = nil
	if err := p.remember(); err != nil {
		return err
	}
	printf(p.Out, "%-14s %s\n", "control plane", "the one before is stopped")
	if p.pivoting.options.deleteSource {
		if err := p.deleteLeft(ctx); err != nil {
			return err
		}
	}
	printf(p.Out, "\n  export KUBECONFIG=%s\n", p.settings.Kubeconfig)
	return nil
}

func (p *planePivot) deleteLeft(ctx context.Context) error {
	cp, err := p.plane.ControlPlane()
	if err != nil {
		return err
	}
	if err := cp.Delete(ctx); err != nil {
		return err
	}
	printf(p.Out, "%-14s %s\n", "control plane", "the one before is deleted")
	return nil
}
