package controlplane

import (
	"context"
	"fmt"

	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// schedulerConfiguration is the configuration file of the scheduler, for what has no flag.
func schedulerConfiguration(kubeconfig string) string {
	return fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: %q
  qps: 1000
  burst: 2000
leaderElection:
  leaderElect: false
`, kubeconfig)
}

// runScheduler schedules pods until ctx ends.
func runScheduler(ctx context.Context, configFile string) error {
	schedulerOptions := options.NewOptions()
	err := parseFlags(*schedulerOptions.Flags, []string{"--config=" + configFile, "--secure-port=0"})
	if err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	config, scheduler, err := app.Setup(ctx, schedulerOptions)
	if err != nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	// Without leader election it always returns an error, which then only says that it has ended.
	if err := app.Run(ctx, config, scheduler); err != nil && ctx.Err() == nil {
		return fmt.Errorf("kube-scheduler: %w", err)
	}
	return nil
}
