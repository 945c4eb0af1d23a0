package controller

import (
	"cmp"
	"context"
	"net"
	"os"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/enroll"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/fleet/profile"
)

// registerEnrolment lets clusters join: it decides on their requests, and installs agents where it can.
func (e *engine) registerEnrolment() error {
	if err := join.Register(e.mgr, join.Options{Events: e.events}); err != nil {
		return err
	}
	hub, err := e.endpoint()
	if err != nil {
		return err
	}
	return enroll.Register(e.mgr, enroll.Options{
		Hub: hub, Image: cmp.Or(e.options.Hub.AgentImage, agent.DefaultImage("")), Kubeconfigs: e.options.Kubeconfigs,
		Events: e.events, Patience: e.options.patience, Version: e.options.Version, Inside: e.inside(hub),
		Secrets: e.enrolSecrets, Changed: e.enrolments,
	})
}

// enrolKind stands for a FleetCluster that reads the kubeconfig by which its agent is installed.
const enrolKind = "FleetCluster/enrol"

// enrolSecrets lends a reader of the kubeconfig of a FleetCluster.
func (e *engine) enrolSecrets(cluster types.NamespacedName) (client.Reader, func()) {
	return e.lend(user{enrolKind, cluster})
}

// lend lends a reader of what one user refers to.
func (e *engine) lend(u user) (client.Reader, func()) {
	e.references.begin(u)
	return e.references.reader(u), func() { e.references.end(u) }
}

// inside reports whether the way to the hub is that of pods of its own cluster, and says so once.
func (e *engine) inside(hub join.Endpoint) bool {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || hub.Server != "https://"+net.JoinHostPort(host, port) {
		return false
	}
	e.log.Info("members would be told an address that only the hub's own cluster has; set --hub-url to the one at which they reach its API server", "address", hub.Server)
	return true
}

// endpoint is where members find the hub.
func (e *engine) endpoint() (join.Endpoint, error) {
	hub, err := join.EndpointOf(e.options.RestConfig)
	if err != nil {
		return hub, err
	}
	if url := e.options.Hub.URL; url != "" {
		// The name in its certificate is that of the other way.
		hub.Server, hub.ServerName = url, ""
	}
	if file := e.options.Hub.CAFile; file != "" {
		if hub.CA, err = os.ReadFile(file); err != nil {
			return hub, &failure.Error{Op: "read the hub's certificates from", Object: file, Kind: failure.Invalid, Err: err, Remedy: "correct --hub-ca"}
		}
	}
	return hub, nil
}

// registerProfiles publishes clusters where the cluster has the kind.
func (e *engine) registerProfiles(ctx context.Context) error {
	there, err := e.serves(ctx, profile.Kind.Kind, profile.List())
	if err != nil || !there {
		return err
	}
	return profile.Register(e.mgr)
}
