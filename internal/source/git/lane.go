package git

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/git/wire"
)

// lane is a repository as seen with one set of credentials. One flight at a time
// is under way in it; requests that come meanwhile gather for the next, so that
// each is answered with a state that is no older than the request.
type lane struct {
	repo    *repo
	remote  *remote
	display string
	key     string
	used    time.Time // guarded by repo.mu

	mu      sync.Mutex // guards what follows
	flying  bool
	next    *flight
	current *flight
	// pinned are the commits that these credentials were found good for.
	pinned map[odb.Hash]bool
}

// result is what a reference resolved to.
type result struct {
	commit   odb.Hash
	revision string
	// tagName is the tag by which it was found, or ""; tag is its object when it is annotated.
	tagName string
	tag     odb.Hash
}

type outcome struct {
	result result
	err    error
}

// flight is one visit to the remote for all requests that wait for it.
type flight struct {
	ctx     context.Context
	cancel  context.CancelFunc
	timeout time.Duration
	waiting int
	refs    []Ref
	// tags are the references whose tag objects are needed too.
	tags map[Ref]bool
	// outcomes may be read once done is closed.
	outcomes map[Ref]outcome
	done     chan struct{}
}

func (l *lane) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flying
}

// fetch joins the next flight and waits for it.
func (l *lane) fetch(ctx context.Context, ref Ref, withTag bool, timeout time.Duration) (result, error) {
	l.mu.Lock()
	f := l.next
	if f == nil {
		f = &flight{outcomes: map[Ref]outcome{}, tags: map[Ref]bool{}, done: make(chan struct{})}
		f.ctx, f.cancel = context.WithCancel(l.repo.store.ctx)
		l.next = f
	}
	f.waiting++
	f.tags[ref] = f.tags[ref] || withTag
	f.timeout = max(f.timeout, timeout)
	if !slices.Contains(f.refs, ref) {
		f.refs = append(f.refs, ref)
	}
	if !l.flying {
		l.flying = true
		l.repo.store.work.Go(l.fly)
	}
	l.mu.Unlock()

	select {
	case <-f.done:
		o := f.outcomes[ref]
		return o.result, o.err
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A flight that nobody waits for any more need not arrive.
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		if l.next == f {
			l.next = nil
		}
	}
	return result{}, l.explain(ctx, ctx.Err(), timeout)
}

// fly makes flights until nobody waits.
func (l *lane) fly() {
	for {
		l.mu.Lock()
		f := l.next
		l.next, l.current = nil, f
		if f == nil {
			l.flying = false
			l.mu.Unlock()
			return
		}
		timeout := f.timeout
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(f.ctx, timeout)
		if err := l.visit(ctx, f); err != nil {
			err = l.explain(ctx, err, timeout)
			l.repo.sweep()
			for _, ref := range f.refs {
				if _, ok := f.outcomes[ref]; !ok {
					f.outcomes[ref] = outcome{err: err}
				}
			}
		}
		cancel()
		f.cancel()
		close(f.done)
		l.repo.tidy(l.repo.store.ctx)
	}
}

// visit fills in the outcomes of a flight. An error is that of every reference without one.
func (l *lane) visit(ctx context.Context, f *flight) error {
	if err := l.repo.open(ctx); err != nil {
		return err
	}
	session, err := l.remote.session()
	if err != nil {
		return err
	}
	defer session.Close()
	listed, err := session.Refs(ctx)
	if err != nil {
		return err
	}
	found := map[Ref][]candidate{}
	for _, ref := range f.refs {
		candidates, ok, err := ref.resolve(listed)
		if err == nil && !ok {
			err = ref.missing(l.display, listed)
		}
		if err != nil {
			f.outcomes[ref] = outcome{err: l.explain(ctx, err, f.timeout)}
			continue
		}
		found[ref] = candidates
	}
	if err := l.fetchMissing(ctx, session, f, found); err != nil {
		return err
	}
	for ref, candidates := range found {
		if _, failed := f.outcomes[ref]; !failed {
			f.outcomes[ref] = l.choose(ref, candidates)
		}
	}
	return nil
}

// fetchMissing brings the commits that are not on disk: those that references point at
// together, each pinned one alone, so that one that does not exist spoils nothing.
func (l *lane) fetchMissing(ctx context.Context, session *wire.Session, f *flight, found map[Ref][]candidate) error {
	var wants []candidate
	var pinned []Ref
	for _, ref := range f.refs {
		for _, c := range found[ref] {
			switch {
			case l.repo.has(c.commit) && (!f.tags[ref] || l.repo.db.Load().Has(c.want)):
			case ref.Commit != "":
				pinned = append(pinned, ref)
			case !slices.Contains(wants, c):
				wants = append(wants, c)
			}
		}
	}
	if len(wants) > 0 {
		if err := l.repo.fetch(ctx, session, wants); err != nil {
			return err
		}
	}
	for _, ref := range pinned {
		if err := l.fetchPinned(ctx, session, ref, found[ref][0]); err != nil {
			f.outcomes[ref] = outcome{err: l.explain(ctx, err, f.timeout)}
		}
	}
	return nil
}

func (l *lane) fetchPinned(ctx context.Context, session *wire.Session, ref Ref, c candidate) error {
	if l.repo.has(c.commit) {
		return nil
	}
	var err error
	if session.CanWant(c.commit) {
		err = l.repo.fetch(ctx, session, []candidate{c})
	} else {
		err = l.repo.fetchHistory(ctx, session, ref, c)
	}
	var refused *wire.RemoteError
	if errors.As(err, &refused) || errors.Is(err, errNoCommit) {
		return &failure.Error{
			Op: "fetch", Object: l.display, Kind: failure.NotFound,
			Err: fmt.Errorf("there is no commit %s: %w", c.commit, err), Remedy: "correct spec.ref.commit",
		}
	}
	return err
}

// choose turns candidates that are on disk into a result: the commit made last.
func (l *lane) choose(ref Ref, candidates []candidate) outcome {
	db := l.repo.db.Load()
	var best commit
	var chosen candidate
	for _, c := range candidates {
		got, err := commitOf(db, c.commit)
		if err != nil {
			return outcome{err: l.repo.readError(db, err)}
		}
		if best.hash.IsZero() || got.when > best.when {
			best, chosen = got, c
		}
	}
	l.repo.setCurrent(l.key, ref, best.hash)
	revision := "sha1:" + best.hash.String()
	if chosen.label != "" {
		revision = chosen.label + "@" + revision
	}
	got := result{commit: best.hash, revision: revision, tagName: chosen.tag}
	if chosen.want != best.hash {
		got.tag = chosen.want
	}
	return outcome{result: got}
}
