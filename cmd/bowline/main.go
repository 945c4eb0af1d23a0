// Command bowline is the command-line client and the engine in one executable.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bowline-dev/bowline/internal/cli"
)

// version is set when the program is built; see the Makefile.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args, version, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
