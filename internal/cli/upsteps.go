package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/cli/local"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/localkube"
)

func (b *bringUp) startControlPlane(ctx context.Context) (string, error) {
	cp, err := b.plane.HubControlPlane(b.settings.Hub)
	if err != nil {
		return "", err
	}
	o := localkube.Options{Nodes: b.options.nodes, Port: b.options.apiPort}
	if b.settings.Hub != "" {
		o = localkube.Options{} // how it is made is said in Git
	}
	before, err := cp.State(ctx)
	if err != nil {
		return "", err
	}
	// Written down first, so that `down` finds what a failed start leaves.
	if err := b.remember(); err != nil {
		return "", err
	}
	now, err := cp.Start(ctx, o)
	if err != nil {
		return "", err
	}
	b.settings.Kubeconfig, b.settings.Server = now.Kubeconfig, now.Server
	b.options.kubeconfig = ""
	if err := b.connectTo(clusterFlags{kubeconfig: now.Kubeconfig}); err != nil {
		return "", err
	}
	if before.Running() {
		return "runs already at " + now.Server, nil
	}
	return fmt.Sprintf("ready at %s", now.Server), nil
}

// useCluster takes an existing cluster, if no other engine works on it.
func (b *bringUp) useCluster(ctx context.Context) (string, error) {
	f := b.options.clusterFlags
	if f.kubeconfig != "" {
		abs, err := filepath.Abs(f.kubeconfig)
		if err != nil {
			return "", err
		}
		f.kubeconfig = abs
	} else {
		if f.search == "" {
			f.search = absoluteList(clientcmd.NewDefaultClientConfigLoadingRules().GetLoadingPrecedence())
		}
		b.settings.KubeconfigEnv = f.search
	}
	if err := b.connectTo(f); err != nil {
		return "", err
	}
	if err := b.refuseOtherCluster(); err != nil {
		return "", err
	}
	b.settings.Existing, b.settings.Server = true, b.cluster.host()
	b.settings.Kubeconfig, b.settings.Context = f.kubeconfig, f.context
	if err := b.cluster.refuseOtherEngine(ctx); err != nil {
		return "", err
	}
	if err := b.remember(); err != nil {
		return "", err
	}
	which := b.cluster.host()
	if f.context != "" {
		which += " (context " + f.context + ")"
	}
	return "existing, at " + which, nil
}

// refuseOtherCluster keeps a running plane where it is: its engine would go on
// with the cluster that it was started on, while the fleet is declared on another.
func (b *bringUp) refuseOtherCluster() error {
	now, host := b.settings.Server, b.cluster.host()
	if _, running := b.plane.Engine().Running(); !running || now == "" || now == host {
		return nil
	}
	return &failure.Error{Op: "use cluster", Object: host, Kind: failure.Conflict,
		Err:    fmt.Errorf("plane %s works on %s", b.plane.Name, now),
		Remedy: fmt.Sprintf("choose another --name, or stop it first with `%s down --keep-data --name %s`", b.name, b.plane.Name)}
}

func (b *bringUp) connectTo(f clusterFlags) error {
	f.namespace = platformNamespace
	c, err := f.connect()
	b.cluster = c
	return err
}

func absoluteList(paths []string) string {
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		if abs, err := filepath.Abs(p); err == nil {
			out = append(out, abs)
		}
	}
	return strings.Join(out, string(os.PathListSeparator))
}

// refuseOtherEngine looks for a running kustomize-controller: two engines that
// serve the same objects would undo each other's work.
func (c *cluster) refuseOtherEngine(ctx context.Context) error {
	var list appsv1.DeploymentList
	if err := c.List(ctx, &list, client.MatchingLabels{"app.kubernetes.io/part-of": "flux"}); err != nil {
		return err
	}
	for _, d := range list.Items {
		if d.Name == "kustomize-controller" && (d.Spec.Replicas == nil || *d.Spec.Replicas > 0) {
			return &failure.Error{Op: "use cluster", Object: c.host(), Kind: failure.Conflict,
				Err:    fmt.Errorf("the engine of Deployment/%s/%s serves the same objects", d.Namespace, d.Name),
				Remedy: fmt.Sprintf("scale it down first: kubectl -n %s scale deployment --all --replicas=0", d.Namespace)}
		}
	}
	return nil
}

func (b *bringUp) startGit(ctx context.Context) (string, error) {
	example := b.example()
	made, err := b.plane.Seed(ctx, example.Name, example.Files)
	if err != nil {
		return "", err
	}
	if _, running := b.plane.Git().Running(); running {
		if _, port, _ := strings.Cut(b.settings.GitAddr, ":"); b.options.gitPort != 0 && port != fmt.Sprint(b.options.gitPort) {
			return "", &failure.Error{Op: "read flag", Object: "--git-port", Kind: failure.Conflict,
				Err: fmt.Errorf("the Git server runs already at %s", b.settings.GitAddr)}
		}
		return "served already at " + b.settings.URL, nil
	}
	listener, err := background.Listen(ctx, b.options.gitPort, b.settings.GitAddr)
	if err != nil {
		return "", err
	}
	defer func() { _ = listener.Close() }()
	before := b.settings.GitAddr
	b.settings.GitAddr = listener.Addr().String()
	b.settings.URL = "http://" + b.settings.GitAddr + "/" + local.Repository
	handed, err := listener.File()
	if err != nil {
		return "", err
	}
	defer func() { _ = handed.Close() }()
	args := append([]string{"serve-git", "--root", b.plane.GitRoot(), "--notify", fleetName, "-n", platformNamespace}, b.connectionArgs()...)
	if err := b.remember(); err != nil {
		return "", err
	}
	self, err := executable()
	if err != nil {
		return "", err
	}
	if _, err := b.plane.Git().Start(self, args, b.connectionEnv(), handed); err != nil {
		return "", err
	}
	if before != "" && before != b.settings.GitAddr {
		return "as it was, but served at " + b.settings.URL + ", because " + before + " is taken; correct the remotes of clones", nil
	}
	if made {
		return "made from the example " + example.Name + ", served at " + b.settings.URL, nil
	}
	return "as it was, served at " + b.settings.URL, nil
}
