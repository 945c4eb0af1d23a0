package git

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/git/wire"
)

// maxHaves is how many commits the server is told of, so that it sends only
// what has changed since; the latest know best.
const maxHaves = 32

// Thresholds of tidy.
const (
	maxPacks     = 30
	garbageBytes = 64 << 20
)

var errNoCommit = errors.New("it is in no branch")

// has reports whether a commit and all of its tree are on disk.
func (r *repo) has(h odb.Hash) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.known, h)
}

func (r *repo) haves() []odb.Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.known[max(0, len(r.known)-maxHaves):])
}

// setCurrent notes what a reference stands for now, so that it is kept.
func (r *repo) setCurrent(lane string, ref Ref, h odb.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.store.opts.Now()
	// References that nobody asks for any more, and those seen with credentials that
	// have been replaced, hold nothing; trees in use are kept for themselves.
	maps.DeleteFunc(r.current, func(_ string, c resolved) bool { return now.Sub(c.at) > forgottenAfter })
	r.current[fmt.Sprintf("%s %q", lane, ref)] = resolved{h, now}
}

// fetch brings commits without their history: what differs from the commits that
// are here. A server that cannot do that sends everything.
func (r *repo) fetch(ctx context.Context, session *wire.Session, wants []candidate) error {
	haves := r.haves()
	req := wire.FetchRequest{Depth: 1, Haves: haves, Shallow: haves}
	for _, c := range wants {
		req.Wants = append(req.Wants, c.want)
	}
	err := r.receive(ctx, session, req, wants)
	if err == nil || ctx.Err() != nil || len(haves) == 0 || !worthAnother(err) {
		return err
	}
	// A pack that builds on what is not here after all: ask for a whole one.
	req.Haves, req.Shallow = nil, nil
	return r.receive(ctx, session, req, wants)
}

// worthAnother reports whether a fetch failed in a way that one without haves
// may not: git could not complete the pack, or the server did not like the request.
func worthAnother(err error) bool {
	var exit *exec.ExitError
	var refused *wire.RemoteError
	return errors.As(err, &exit) || errors.As(err, &refused)
}

// fetchHistory looks for a commit in all that the server has, for servers that
// give out only what references point at.
func (r *repo) fetchHistory(ctx context.Context, session *wire.Session, ref Ref, c candidate) error {
	refs, err := session.Refs(ctx)
	if err != nil {
		return err
	}
	req := wire.FetchRequest{}
	for _, remote := range refs {
		if name := ref.fullName(); remote.Name == name || (name == "" && (strings.HasPrefix(remote.Name, heads) || strings.HasPrefix(remote.Name, tags))) {
			req.Wants = append(req.Wants, remote.Hash)
		}
	}
	if len(req.Wants) == 0 {
		return errNoCommit
	}
	return r.receive(ctx, session, req, []candidate{c})
}

// receive fetches a pack and notes the commits that came with it.
func (r *repo) receive(ctx context.Context, session *wire.Session, req wire.FetchRequest, commits []candidate) error {
	r.disk.RLock()
	defer r.disk.RUnlock()
	pack, err := session.Fetch(ctx, req)
	if err != nil {
		return err
	}
	if err := indexPack(ctx, r.dir, pack); err != nil {
		return err
	}
	db := r.db.Load()
	if err := db.Rescan(); err != nil {
		return err
	}
	var got []odb.Hash
	for _, c := range commits {
		commit, err := commitOf(db, c.want)
		if errors.Is(err, odb.ErrNotFound) {
			err = errNoCommit
		}
		if err != nil {
			return err
		}
		got = append(got, commit.hash)
	}
	return r.note(got)
}

// note records commits as known.
func (r *repo) note(commits []odb.Hash) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range commits {
		if !slices.Contains(r.known, h) {
			r.known = append(r.known, h)
		}
	}
	return writeCommits(r.dir, r.known)
}

// sweep removes what a fetch that failed has left behind, unless another one is under way.
func (r *repo) sweep() {
	if r.disk.TryLock() {
		_ = odb.RemoveLeftovers(r.dir) // what stays is removed when the repository is opened next
		r.disk.Unlock()
	}
}

// tidy packs the repository anew when it has grown a lot: what no commit in
// use refers to goes, the rest becomes one pack. In use are the commits
// that references stand for and those whose trees somebody still holds.
func (r *repo) tidy(ctx context.Context) {
	db := r.db.Load()
	if db == nil || r.damaged.Load() {
		return
	}
	r.touch()
	count, size := db.Packs()
	r.mu.Lock()
	base := r.packedBytes
	r.mu.Unlock()
	if count <= maxPacks && size <= 2*base+garbageBytes {
		return
	}
	r.disk.Lock()
	defer r.disk.Unlock()
	if err := r.repack(ctx, db); err != nil && ctx.Err() == nil {
		// Without room for a new pack the old ones go on serving; anything else shows when they are read.
		r.mu.Lock()
		r.packedBytes = size
		r.mu.Unlock()
	}
}

// touch notes once a day that the repository is in use.
func (r *repo) touch() {
	now := r.store.opts.Now()
	r.mu.Lock()
	due := now.Sub(r.touched) > 24*time.Hour
	if due {
		r.touched = now
	}
	r.mu.Unlock()
	if due {
		_ = os.Chtimes(filepath.Join(r.dir, usedFile), now, now) // at worst it is fetched again one day
	}
}

func (r *repo) repack(ctx context.Context, db *odb.DB) error {
	r.mu.Lock()
	keep := map[odb.Hash]bool{}
	for _, c := range r.current {
		keep[c.commit] = true
	}
	for k, h := range r.live {
		if h.tree.Value() != nil {
			keep[k.commit] = true
		}
	}
	r.known = slices.DeleteFunc(r.known, func(h odb.Hash) bool { return !keep[h] })
	err := writeCommits(r.dir, r.known)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := run(command(ctx, r.dir, "repack", "-a", "-d", "-q", "-n")); err != nil {
		return err
	}
	if err := db.Rescan(); err != nil {
		return err
	}
	_, size := db.Packs()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packedBytes = size
	return nil
}
