package controller

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"time"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
)

// host is what the engine of a process lends to those of other clusters that run beside it. The first has
// made it; a guest's options name it.
type host struct {
	// repositories are fetched once, for all engines. Each asks with its own credentials.
	repositories *git.Store
	// meters and turns count what all engines do together.
	meters *meters
	turns  *atomic.Uint64
}

// guest says whose guest an engine is.
type guest struct {
	*host
	// name tells the guest from all others, past and future ones too. Its cluster does not choose it.
	name string
}

// What a guest may do at one time. Clusters that are pushed to are many, and each is small.
const (
	guestConcurrency = 4
	guestRequests    = 8
	guestFetchers    = 4
	guestGrace       = 5 * time.Second
)

// guestOptions returns those of the engine of another cluster in the process of the engine with these options. What was
// allowed for the sake of the own cluster is not allowed to those who may write in the other one.
func (e *engine) guestOptions(name string) Options {
	o := e.options
	return Options{
		DataDir:    filepath.Join(o.DataDir, guestsDir, name),
		Mirrors:    o.Mirrors,
		StageKinds: o.StageKinds, AdditiveReadyExpr: o.AdditiveReadyExpr, LenientSubstitution: o.LenientSubstitution,
		Tenancy: Tenancy{
			Open: o.Tenancy.Open, PlatformNamespaces: o.Tenancy.PlatformNamespaces, DefaultServiceAccount: o.Tenancy.DefaultServiceAccount,
			NoCrossNamespaceRefs: o.Tenancy.NoCrossNamespaceRefs, Foreign: true,
		},
		DefaultDecryptionAccount: o.DefaultDecryptionAccount, AgeSecret: o.AgeSecret, VaultConfig: o.VaultConfig,
		DeletionBudget: o.DeletionBudget, AuditInterval: o.AuditInterval, MaxFileSize: o.MaxFileSize,
		Concurrency: guestConcurrency, Requests: guestRequests, fetchers: guestFetchers,
		LeaderElect: true, LeaderElectNamespace: fleetv1.MemberNamespace,
		Version: o.Version, fleet: o.fleet, Logger: o.Logger, patience: o.patience, builder: o.builder, keyServices: o.keyServices,
		guest: &guest{host: e.host, name: name},
	}
}

// guestsDir is the folder below the data folder that holds those of guests.
const guestsDir = "members"

// repositories is the store of Git repositories as one engine uses it: what it recalls, which takes no
// credentials, is what it was given itself.
type repositories struct {
	*git.Store
	whose string // empty for the engine of the process
}

// Fetch is that of the store.
func (r repositories) Fetch(ctx context.Context, req git.Request) (source.Artifact, error) {
	return r.Store.Fetch(ctx, r.signed(req))
}

// Recall is that of the store.
func (r repositories) Recall(ctx context.Context, req git.Request, revision string) (source.Artifact, error) {
	return r.Store.Recall(ctx, r.signed(req), revision)
}

// signed tells the sources of one engine from those of the others: a cluster chooses the uids of its objects.
func (r repositories) signed(req git.Request) git.Request {
	if r.whose != "" && req.For != "" {
		req.For = r.whose + "/" + req.For
	}
	return req
}
