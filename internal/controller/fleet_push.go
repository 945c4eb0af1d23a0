package controller

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetlink "github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/fleet/push"
)

// pushKind stands for a FleetCluster that reads the kubeconfig by which it is pushed to.
const pushKind = "FleetCluster/push"

// registerPush has this process run the engines of members that can host none.
func (e *engine) registerPush() (err error) {
	e.pusher, err = push.Register(e.mgr, push.Options{
		Run: e.runMember, Forget: e.forgetMember, Kept: e.keptMembers, Secrets: e.pushSecrets, Events: e.events,
		Kubeconfigs: e.options.Kubeconfigs, Logger: e.log.WithName("push"), AgentVersion: e.options.Version,
		Timing: e.options.fleet.link, LongestPause: e.options.fleet.pause,
	})
	return err
}

// runMember runs the engine of another cluster until ctx is done.
func (e *engine) runMember(ctx context.Context, config *rest.Config, m fleetlink.Membership) error {
	o := e.guestOptions(m.Incarnation)
	// No connection outlives the engine: its credentials may have been taken back.
	connections := connrotation.NewDialer((&net.Dialer{Timeout: dialing, KeepAlive: 30 * time.Second}).DialContext)
	defer connections.CloseAll()
	o.RestConfig, o.Membership = rest.CopyConfig(config), &m
	o.RestConfig.Dial = connections.DialContext
	o.Logger = o.Logger.WithValues("fleetCluster", m.Cluster)
	return Run(ctx, o)
}

// forgetMember deletes what the engine of another cluster kept on disk.
func (e *engine) forgetMember(incarnation string) {
	if err := os.RemoveAll(filepath.Join(e.options.DataDir, guestsDir, filepath.Base(incarnation))); err != nil {
		e.log.Error(err, "what a member's engine kept is left on disk")
	}
}

// keptMembers names those of which there is something on disk.
func (e *engine) keptMembers() (incarnations []string) {
	entries, err := os.ReadDir(filepath.Join(e.options.DataDir, guestsDir))
	if err != nil && !os.IsNotExist(err) {
		e.log.Error(err, "what members' engines kept cannot be listed")
	}
	for _, entry := range entries {
		incarnations = append(incarnations, entry.Name())
	}
	return incarnations
}

// dialing bounds the time in which a connection to a member has to come about.
const dialing = 10 * time.Second

// pushSecrets lends a reader of the kubeconfig of a FleetCluster.
func (e *engine) pushSecrets(cluster types.NamespacedName) (client.Reader, func()) {
	return e.lend(user{pushKind, cluster})
}
