package cli

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/gitserve"
)

type serveGitOptions struct {
	clusterFlags
	root string
	name string
}

// serveGitCommand is the process that `up` leaves behind to serve the
// repository; it is started with its listener already open.
func (a *app) serveGitCommand() *cobra.Command {
	o := &serveGitOptions{}
	cmd := &cobra.Command{
		Use:    "serve-git",
		Short:  "Serve the repository of a plane on this machine",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serveGit(cmd.Context(), o)
		},
	}
	o.addNamespace(cmd)
	cmd.Flags().StringVar(&o.root, "root", "", "`folder` of the bare repositories")
	cmd.Flags().StringVar(&o.name, "notify", "", "`name` of the GitRepository to reconcile when something is pushed")
	return cmd
}

func (a *app) serveGit(ctx context.Context, o *serveGitOptions) error {
	log := slog.New(slog.NewTextHandler(a.Err, nil))
	listener, err := background.InheritedListener()
	if err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	// One request that waits is enough: it is about whatever was pushed by then.
	pushed := make(chan struct{}, 1)
	go func() {
		for range pushed {
			if err := c.notifyPush(ctx, o.name); err != nil {
				log.Error("ask for the push to be delivered", "gitrepository", o.name, "error", err)
			}
		}
	}()
	server := &http.Server{
		Handler: gitserve.Handler(o.root, gitserve.Options{OnPush: func(string) {
			select {
			case pushed <- struct{}{}:
			default:
			}
		}}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	log.Info("serving", "address", listener.Addr().String(), "root", o.root)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// notifyPush asks for the repository to be looked at now, not at its interval.
func (c *cluster) notifyPush(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	obj := gitRepositoryKind().newObject()
	obj.SetNamespace(c.namespace)
	obj.SetName(name)
	return c.requestReconcile(ctx, obj, time.Now().Format(time.RFC3339Nano))
}
