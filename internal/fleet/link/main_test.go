package link_test

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/bowline-dev/bowline/internal/cli"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// asProgram makes the test executable the program itself, so that tests have real processes to kill.
const asProgram = "BOWLINE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(cli.Main(ctx, os.Args, "v0.0.0-test", cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})) //nolint:gocritic // the process ends
	}
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m, testkit.WithControllers())
}
