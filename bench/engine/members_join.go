package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/fleet/link"
)

var errNotSimulated = errors.New("it is not simulated")

// memberName names member n.
func memberName(n int) string { return fmt.Sprintf("member-%04d", n) }

// joinAll declares all members, has each join with an invitation and a certificate of its own, and keeps
// their links running until ctx ends.
func (b *bench) joinAll(ctx, running context.Context) error {
	ctrl.SetLogger(logr.Discard())
	scheme := runtime.NewScheme()
	if err := join.AddToScheme(scheme); err != nil {
		return err
	}
	hub, err := kubeclient.New(b.plane.client.config, kubeclient.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	at, err := join.EndpointOf(b.plane.client.config)
	if err != nil {
		return err
	}
	return parallel(b.cfg.workers, len(b.names), func(n int) error {
		credentials, err := b.joinOne(ctx, hub, at, n)
		if err != nil {
			return fmt.Errorf("have %s join: %w", b.names[n], err)
		}
		b.startLink(running, credentials)
		return nil
	})
}

func (b *bench) joinOne(ctx context.Context, hub kubeclient.Client, at join.Endpoint, n int) (*join.Credentials, error) {
	cluster := &fleetv1.FleetCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.cfg.namespace, Name: b.names[n], Labels: map[string]string{"environment": "bench"}},
		Spec:       fleetv1.FleetClusterSpec{Join: &fleetv1.JoinSpec{}},
	}
	if err := hub.Create(ctx, cluster); err != nil {
		return nil, err
	}
	invitation, _, err := join.Invite(ctx, hub, cluster, at)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return join.Request(ctx, invitation, types.UID("kube-system-of-"+b.names[n]), key)
}

// startLink starts the member's side: the link that agents have, over an API in memory.
func (b *bench) startLink(ctx context.Context, c *join.Credentials) {
	api, config := newMemberAPI(string(c.Member)), c.Config()
	l := link.New(link.Options{
		Membership: link.Membership{
			Cluster: types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, Incarnation: c.Incarnation(), AgentVersion: "bench",
			Hub: func() *rest.Config { return config },
		},
		Client: api, Direct: api, Cache: api, Copies: api,
		Version: func(context.Context) (string, error) { return "v1.36.3", nil },
		Sources: []string{sourcev1.GitRepositoryKind},
		Pending: func() []fleetv1.PendingDeletion { return nil }, Drifted: func() int { return 0 }, Log: logr.Discard(),
	})
	go func() {
		if err := l.Start(ctx); err != nil && ctx.Err() == nil {
			b.log.printf("  the link of %s ended: %s", c.Name, err)
		}
	}()
}
