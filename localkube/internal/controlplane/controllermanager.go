package controlplane

import (
	"context"
	"fmt"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"

	"github.com/bowline-dev/bowline/localkube/internal/pki"
)

// controllerManagerFlags is the command line of the controller manager. Controllers for which a
// local cluster has no use (clouds, node addresses) are off; all that act on what users apply run.
func controllerManagerFlags(keys pki.Folder, kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--controllers=*,-nodeipam,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle-controller",
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=1000",
		"--kube-api-burst=2000",
		"--cluster-signing-cert-file=" + keys.Cert(pki.CA),
		"--cluster-signing-key-file=" + keys.Key(pki.CA),
		"--root-ca-file=" + keys.Cert(pki.CA),
		"--service-account-private-key-file=" + keys.Key(pki.ServiceAccountKey),
		"--use-service-account-credentials=false",
	}
}

// runControllerManager runs the controllers until ctx ends.
func runControllerManager(ctx context.Context, flags []string) error {
	managerOptions, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("kube-controller-manager: make options: %w", err)
	}
	known, off, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	if err := parseFlags(managerOptions.Flags(known, off, aliases), flags); err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	config, err := managerOptions.Config(ctx, known, off, aliases)
	if err != nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	if err := app.Run(ctx, config.Complete()); err != nil && ctx.Err() == nil {
		return fmt.Errorf("kube-controller-manager: %w", err)
	}
	return nil
}
