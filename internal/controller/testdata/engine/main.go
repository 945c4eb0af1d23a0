// Engine is the program that tests kill: an engine on the cluster of a kubeconfig, with a data
// folder that outlives it.
//
//	engine KUBECONFIG DATA
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/bowline-dev/bowline/internal/controller"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(kubeconfig, dataDir string) error {
	logger := logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
	klog.SetLogger(logger)
	ctrllog.SetLogger(logger)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	return controller.Run(ctx, controller.Options{
		RestConfig: config, DataDir: filepath.Clean(dataDir), AuditInterval: -1, Logger: logger, Tenancy: controller.Tenancy{Open: true},
		Requests: 2, // few at a time, so that an apply is under way for longer
	})
}
