package git

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// usedFile is renewed while a repository is in use, so that one that nobody uses can be told.
const usedFile = "bowline-used"

// repo is the object store of one URL. What lanes fetch goes into it; access is
// not its business, for each lane lists the remote's references with its own
// credentials before anything is given out.
type repo struct {
	store   *Store
	dir     string
	display string // the URL without credentials
	cache   *snapshot.Cache
	// damaged is set when something that should be on disk is not; the next fetch starts over.
	damaged atomic.Bool
	db      atomic.Pointer[odb.DB] // nil until opened

	// disk is held for reading while packs are added, and for writing while
	// they are removed: opening, packing anew, starting over.
	disk sync.RWMutex

	mu    sync.Mutex // guards what follows
	lanes map[string]*lane
	// known are the commits whose trees are complete on disk, oldest first.
	known []odb.Hash
	// current is what each reference was last resolved to, by lane and reference.
	current map[string]resolved
	// live are the trees that have been handed out and may still be in use.
	live map[treeKey]handedOut
	// verdicts are the signers of objects whose signatures were good.
	verdicts map[verdictKey]string
	// served is which commit everybody was given last, as far as this process knows.
	served map[string]odb.Hash
	// touched is when usedFile was last renewed.
	touched time.Time
	// packedBytes is the size of the packs after they were last put in order.
	packedBytes int64
}

type treeKey struct {
	commit odb.Hash
	ignore string // with a mark before it that tells none from empty
	// view says what else of the request makes a difference, or whose submodule the commit is.
	view string
}

// resolved is what a reference stood for when it was last asked for.
type resolved struct {
	commit odb.Hash
	at     time.Time
}

type handedOut struct {
	tree   weak.Pointer[snapshot.Tree]
	digest string
	// reads are the databases that the tree reads from.
	reads map[*repo]*odb.DB
}

// usable returns the tree if somebody still holds it and all that it reads from is sound.
func (h handedOut) usable() *snapshot.Tree {
	for r, db := range h.reads {
		if r.damaged.Load() || r.db.Load() != db {
			return nil
		}
	}
	return h.tree.Value()
}

func newRepo(s *Store, dir, display string) *repo {
	return &repo{
		store: s, dir: dir, display: display, cache: snapshot.NewCache(),
		lanes: map[string]*lane{}, current: map[string]resolved{}, live: map[treeKey]handedOut{},
		verdicts: map[verdictKey]string{}, served: map[string]odb.Hash{},
	}
}

// forgottenAfter is how long credentials and references are remembered that
// nobody uses.
const forgottenAfter = 24 * time.Hour

// lane returns the repository as seen with some credentials.
func (r *repo) lane(u *url.URL, display string, auth Auth, proxy *url.URL) (*lane, error) {
	key := fingerprint(auth, proxy) + display
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.lanes[key]; l != nil {
		l.used = r.store.opts.Now()
		return l, nil
	}
	remote, err := newRemote(u, auth, proxy, r.store.opts.DataDir)
	if err != nil {
		return nil, err
	}
	// Credentials that nobody uses any more are forgotten.
	now := r.store.opts.Now()
	for k, l := range r.lanes {
		if now.Sub(l.used) > forgottenAfter && !l.busy() {
			l.remote.close()
			delete(r.lanes, k)
		}
	}
	l := &lane{repo: r, remote: remote, display: display, key: key, used: now}
	r.lanes[key] = l
	return l, nil
}

// open makes the repository on disk ready; one that is damaged starts over.
func (r *repo) open(ctx context.Context) error {
	if r.db.Load() != nil && !r.damaged.Load() {
		return nil
	}
	r.disk.Lock()
	defer r.disk.Unlock()
	if r.db.Load() != nil && !r.damaged.Load() {
		return nil
	}
	err := errors.New("damaged")
	if !r.damaged.Load() {
		err = r.load(ctx)
	}
	if err != nil && ctx.Err() == nil {
		// Trees that are in use keep the files that they have open.
		if err = os.RemoveAll(r.dir); err == nil {
			r.mu.Lock()
			clear(r.served)
			r.mu.Unlock()
			err = r.load(ctx)
		}
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("open object store: %w", ctx.Err()) // nothing is wrong with the folder
	}
	if err != nil {
		return &failure.Error{Op: "open object store of", Object: r.display, Kind: failure.Unavailable, Err: err, Remedy: "check the data folder " + r.store.opts.DataDir}
	}
	r.damaged.Store(false)
	return nil
}

func (r *repo) load(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(r.dir, "HEAD")); err != nil {
		if err := initRepository(ctx, r.dir); err != nil {
			return err
		}
	}
	if err := odb.RemoveLeftovers(r.dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, usedFile), nil, 0o600); err != nil {
		return err
	}
	db, err := odb.Open(r.dir, r.store.bases)
	if err != nil {
		return err
	}
	known, err := readCommits(r.dir)
	if err != nil {
		return err
	}
	for _, h := range known {
		if _, err := commitOf(db, h); err != nil {
			return err
		}
	}
	_, size := db.Packs()
	r.mu.Lock()
	r.known, r.packedBytes = known, size
	// A tree of the time before reads what was damaged.
	clear(r.live)
	r.mu.Unlock()
	r.db.Store(db)
	return nil
}

// packedRefs is git's file of references. Each known commit has one, so that
// git keeps its objects when it packs the repository anew.
const packedRefs = "packed-refs"

func readCommits(dir string) ([]odb.Hash, error) {
	data, err := os.ReadFile(filepath.Join(dir, packedRefs))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []odb.Hash
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		hex, _, _ := strings.Cut(line, " ")
		h, err := odb.ParseHash(hex)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", odb.ErrCorrupt, packedRefs, err)
		}
		out = append(out, h)
	}
	return out, nil
}

// writeCommits records commits as references, and as having no parents: only
// their trees are of interest.
func writeCommits(dir string, commits []odb.Hash) error {
	var refs, shallow strings.Builder
	for _, h := range commits {
		fmt.Fprintf(&refs, "%s refs/bowline/%s\n", h, h)
		fmt.Fprintf(&shallow, "%s\n", h)
	}
	if err := replaceFile(filepath.Join(dir, "shallow"), shallow.String()); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, packedRefs), refs.String())
}

func replaceFile(name, text string) error {
	tmp := name + ".lock"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// errSuperseded says that a commit has left the disk before anybody looked at it.
var errSuperseded = errors.New("a newer revision has taken its place")

// artifact shows a commit that is on disk, with its submodules, which are there too.
func (r *repo) artifact(got result, req Request, modules []module, maxSize int64) (source.Artifact, error) {
	key := treeKey{commit: got.commit, view: req.view()}
	if req.Ignore != nil {
		key.ignore = "+" + *req.Ignore
	}
	r.mu.Lock()
	known, ok := r.live[key]
	r.mu.Unlock()
	if ok {
		if tree := known.usable(); tree != nil {
			return source.Artifact{Revision: got.revision, Digest: known.digest, Tree: tree}, nil
		}
	}
	db := r.db.Load()
	if !r.has(got.commit) {
		return source.Artifact{}, errSuperseded
	}
	c, err := commitOf(db, got.commit)
	if err != nil {
		return source.Artifact{}, r.readError(db, err)
	}
	backend, suffixes, reads := r.together(db, modules)
	tree, err := snapshot.New(backend, string(c.tree[:]), snapshot.Options{
		Ignore: req.Ignore, Only: req.only(), Modules: suffixes, MaxFileSize: maxSize, Cache: r.cache,
	})
	if err != nil {
		return source.Artifact{}, r.sparseError(req, err)
	}
	digest, err := tree.Digest()
	if err != nil {
		return source.Artifact{}, err
	}
	h := handedOut{weak.Make(tree), digest, reads}
	r.hold(key, h)
	for _, m := range modules {
		m.lane.repo.hold(treeKey{commit: m.commit, ignore: key.ignore, view: fmt.Sprint(r.name(), got.commit, key.view)}, h)
	}
	return source.Artifact{Revision: got.revision, Digest: digest, Tree: tree}, nil
}

// hold keeps a commit on disk while a tree is in use.
func (r *repo) hold(key treeKey, h handedOut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, h := range r.live {
		if h.tree.Value() == nil {
			delete(r.live, k)
		}
	}
	r.live[key] = h
}
