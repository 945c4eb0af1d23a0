package verify

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"k8s.io/utils/clock"
)

const (
	// rootFor is how long Sigstore's public root is used before it is asked for again.
	rootFor = 24 * time.Hour
	// rootRetry is how long a failure to fetch it stands, so that not everybody asks a server that is down.
	rootRetry = time.Minute
	// askTimeout bounds one question to a server that is no registry.
	askTimeout = 10 * time.Second
	// maxRootFile bounds a file of the update framework, in bytes.
	maxRootFile = 16 << 20
)

// readRoot reads a trusted root, and checks that it can vouch for anybody.
func readRoot(data []byte) (*root.TrustedRoot, error) {
	trusted, err := root.NewTrustedRootFromJSON(data)
	switch {
	case err != nil:
		return nil, err
	case len(trusted.FulcioCertificateAuthorities()) == 0:
		return nil, errors.New("it names no certificate authority")
	case len(trusted.RekorLogs()) == 0 && len(trusted.TimestampingAuthorities()) == 0:
		return nil, errors.New("it names neither a transparency log nor a timestamp authority")
	}
	return trusted, nil
}

// publicRoot is the root of Sigstore's public instance, fetched when somebody needs it. Of what the
// update framework would keep on disk, nothing is: it begins with the root that is part of the program.
type publicRoot struct {
	clock  clock.PassiveClock
	client *http.Client
	url    string
	anchor []byte

	mu      sync.Mutex
	trusted *root.TrustedRoot // guarded by mu, like what follows
	failed  error             // of the last attempt; nil when it succeeded
	until   time.Time         // when to ask again
}

func newPublicRoot(o Options, client *http.Client) *publicRoot {
	p := &publicRoot{clock: o.Clock, client: client, url: o.RootURL, anchor: o.Root}
	if p.url == "" {
		p.url, p.anchor = tuf.DefaultMirror, tuf.DefaultRoot()
	}
	return p
}

// get returns the root. One that cannot be renewed is used on until it can: its keys have terms of their own.
func (p *publicRoot) get(ctx context.Context) (*root.TrustedRoot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	if now.Before(p.until) && (p.trusted != nil || p.failed != nil) {
		return p.trusted, p.standing()
	}
	trusted, err := p.fetch(ctx)
	if ctx.Err() != nil {
		return nil, err // says nothing about the server
	}
	p.failed, p.until = err, now.Add(rootRetry)
	if err == nil {
		p.trusted, p.until = trusted, now.Add(rootFor)
	}
	return p.trusted, p.standing()
}

// standing is the failure that counts: none, while there is a root.
func (p *publicRoot) standing() error {
	if p.trusted != nil {
		return nil
	}
	return p.failed
}

func (p *publicRoot) fetch(ctx context.Context) (*root.TrustedRoot, error) {
	client, err := tuf.New(&tuf.Options{
		Root: p.anchor, RepositoryBaseURL: p.url, DisableLocalCache: true, Fetcher: &fetcher{ctx, p.client},
	})
	if err != nil {
		return nil, err
	}
	data, err := client.GetTarget(RootKey)
	if err != nil {
		return nil, err
	}
	return readRoot(data)
}
