package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/localkube"
)

type localProviderOptions struct {
	clusterFlags
	root   string
	health string
}

func (a *app) localProviderCommand() *cobra.Command {
	o := &localProviderOptions{}
	cmd := &cobra.Command{
		Use:    "local-provider [flags]",
		Short:  "Run the provider of clusters on this machine, for Cluster API",
		Hidden: true, // `bowline up` starts it
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.localProvider(cmd.Context(), o)
		},
	}
	o.addConnection(cmd)
	cmd.Flags().StringVar(&o.root, "root", "", "`folder` of the control planes")
	cmd.Flags().StringVar(&o.health, "health-addr", "0", "`address` to serve /readyz on; 0 turns it off")
	return cmd
}

func (a *app) localProvider(ctx context.Context, o *localProviderOptions) error {
	background.HoldAlone() // control planes go on without their provider
	logger, err := newLogger(a.Err, "info", "json")
	if err != nil {
		return err
	}
	klog.SetLogger(logger)
	ctrllog.SetLogger(logger)
	config, err := o.restConfig()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := localprovider.AddToScheme(scheme); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Logger: logger, HealthProbeBindAddress: o.health,
		Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		return fmt.Errorf("start the local provider: %w", err)
	}
	if err := mgr.AddReadyzCheck("alive", healthz.Ping); err != nil {
		return err
	}
	kube, err := localkube.Find()
	if err != nil {
		return err
	}
	self, err := executable()
	if err != nil {
		return err
	}
	planes := &localprovider.Processes{ControlPlanes: localprovider.Embedded{Executable: kube, Root: o.root},
		Executable: self, Localkube: kube, Root: o.root, Logger: logger.WithName("processes")}
	defer planes.Close()
	if err := localprovider.Register(mgr, planes); err != nil {
		return err
	}
	return mgr.Start(ctx)
}
