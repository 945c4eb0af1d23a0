// Package cli is the room where people meet Bowline: one file per command, all
// of them with kubectl's habits. It reads arguments, calls the rooms below it
// and prints what they answer; it decides nothing about delivery itself.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// Exit codes. A command that failed exits 1, as kubectl does; diff exits 1 for
// changes and 2 for errors; an interrupted command exits as the shell expects.
const (
	exitOK          = 0
	exitFailed      = 1
	exitDiffFailed  = 2
	exitInterrupted = 130
)

// Streams are what a command reads from and writes to.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// app is what all commands of one invocation share.
type app struct {
	Streams
	// name is how the user called the program: "bowline" or, as a plugin,
	// "kubectl bowline".
	name string
	// version is what the build set, empty when it set none.
	version string
}

// exitError carries an exit code. A nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a wrong invocation of a command.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%v; see '%s --help'", e.err, e.cmd.CommandPath())
}
func (e *usageError) Unwrap() error { return e.err }

// Main runs the command that argv asks for and returns the exit code. argv
// starts with the name of the program; version may be empty. When ctx ends, so
// does the command.
func Main(ctx context.Context, argv []string, version string, streams Streams) int {
	// Libraries below must not write to the user's terminal on their own;
	// the engine's process sets its own logger. What Helm's packages write may hold values.
	log.SetOutput(io.Discard)
	ctrllog.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())

	root := newRoot(&app{Streams: streams, name: programName(argv[0]), version: version}) //nolint:contextcheck // commands get it from ExecuteContextC
	root.SetArgs(argv[1:])
	cmd, err := root.ExecuteContextC(ctx)
	return exitCode(ctx, cmd, streams.Err, err)
}

// failureCode annotates a command whose failures have another exit code than
// exitFailed.
const failureCode = "failure-code"

func exitCode(ctx context.Context, cmd *cobra.Command, stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	var withCode *exitError
	switch {
	case errors.As(err, &withCode):
		code, err = withCode.code, withCode.err
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case cmd.Annotations[failureCode] != "":
		code, _ = strconv.Atoi(cmd.Annotations[failureCode])
	}
	for _, e := range each(explain(err)) {
		fmt.Fprintf(stderr, "error: %s\n", oneLine(explain(e)))
	}
	return code
}

// each takes apart what errors.Join put together, so that every error gets a
// line of its own.
func each(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, each(e)...)
	}
	return out
}

// programName is "kubectl bowline" when the program is called as a plugin.
func programName(arg0 string) string {
	if strings.HasPrefix(filepath.Base(arg0), "kubectl-") {
		return "kubectl bowline"
	}
	return "bowline"
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "bowline",
		Short: "What is in Git is what runs, on every cluster",
		Long: "Bowline ties Kubernetes clusters to Git: what is in Git is what runs.\n" +
			"It serves the GitRepository and Kustomization APIs of the Flux toolkit.",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: a.name},
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{cmd: cmd, err: err}
	})
	root.AddGroup(
		&cobra.Group{ID: groupLocal, Title: "On this machine:"},
		&cobra.Group{ID: groupRead, Title: "See what runs:"},
		&cobra.Group{ID: groupAct, Title: "Act on it:"},
		&cobra.Group{ID: groupPreview, Title: "See what would run:"},
		&cobra.Group{ID: groupEngine, Title: "The engine:"},
	)
	for _, c := range a.commands() {
		root.AddCommand(c)
	}
	finish(root, a.name)
	return root
}

const (
	groupLocal   = "local"
	groupRead    = "read"
	groupAct     = "act"
	groupPreview = "preview"
	groupEngine  = "engine"
)

// commands is the list of what the program can do, in the order of its help.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.upCommand(), a.downCommand(), a.statusCommand(),
		a.getCommand(), a.treeCommand(), a.eventsCommand(), a.kubeconfigCommand(),
		a.reconcileCommand(), a.suspendCommand(), a.resumeCommand(), a.approveCommand(), a.joinCommand(), a.leaveCommand(), a.pivotCommand(),
		a.buildCommand(), a.diffCommand(),
		a.controllerCommand(), a.agentCommand(), a.migrateCommand(), a.crdsCommand(), a.versionCommand(), a.docsCommand(),
		a.serveGitCommand(), a.localProviderCommand(),
	}
}

// finish makes usage errors of every command point at its help, and examples
// use the name by which the program was called.
func finish(cmd *cobra.Command, name string) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &usageError{cmd: cmd, err: err}
			}
			return nil
		}
	}
	cmd.DisableFlagsInUseLine = true
	cmd.Example = strings.ReplaceAll(cmd.Example, "  bowline ", "  "+name+" ")
	for _, c := range cmd.Commands() {
		finish(c, name)
	}
}

// oneLine keeps an error to one line, whatever the libraries put in it.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", " ")), " ")
}

// file returns w as an open file when it is one.
func file(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok
}
