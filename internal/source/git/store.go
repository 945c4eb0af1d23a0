// Package git is the room that fetches Git repositories and shows them as
// source.Artifacts. Each repository has one bare object store on disk, shared by all who
// use it; requests for one repository that come while it is being fetched are
// answered together by the fetch after that; objects are read in place.
//
// docs/design/git.md says why references and packs are fetched and objects read with
// go-git's packages, and packs indexed by the git executable.
package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// The defaults of Options and Request.
const (
	DefaultMaxFileSize = 10 << 20
	DefaultTimeout     = 60 * time.Second
	DefaultBranch      = "master"
)

// baseCacheBytes bounds the delta bases in memory, for all repositories together.
const baseCacheBytes = 4 << 20

// Options are the settings of a Store.
type Options struct {
	// DataDir is the folder for the repositories; one Store at a time may use it.
	DataDir string
	// Mirrors replace the beginnings of URLs, like git's url.<base>.insteadOf.
	Mirrors reach.Mirrors
	// MaxFileSize is the largest file in bytes that may be read; DefaultMaxFileSize
	// when 0. Larger files do no harm as long as nobody reads them.
	MaxFileSize int64
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Ref says which state of a repository to fetch, with the fields and the
// precedence of a GitRepository's spec.ref: commit, name, semver, tag, branch.
// The zero value is DefaultBranch.
type Ref struct{ Branch, Tag, SemVer, Name, Commit string }

// Request says what to fetch.
type Request struct {
	// URL is an http, https or ssh URL.
	URL string
	Ref Ref
	// Auth and Proxy say how to get there; without a Proxy, by the one that the environment names.
	Auth  Auth
	Proxy *url.URL
	// Ignore holds patterns of files to leave out; see snapshot.Options.
	Ignore *string
	// Verify, when set, withholds a revision that does not bear the signatures it asks for.
	Verify *Verification
	// Sparse, when not empty, lists the directories to show.
	Sparse []string
	// Submodules says to show those that the commit records, too. Auth goes to the server of URL only.
	Submodules bool
	// Timeout limits a fetch, and that of all submodules once more; DefaultTimeout when 0.
	Timeout time.Duration
	// For identifies who asks, for as long as there is such a one: only what it was
	// given can be recalled for it.
	For string
}

func (r Request) timeout() time.Duration {
	if r.Timeout <= 0 {
		return DefaultTimeout
	}
	return r.Timeout
}

// Store fetches repositories and keeps their objects. It is safe for use by many goroutines.
type Store struct {
	opts   Options
	bases  *odb.Cache
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex // guards repos
	repos map[string]*repo
}

// New opens a store. Close ends what it does in the background.
func New(opts Options) (*Store, error) {
	dir, err := filepath.Abs(opts.DataDir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, &failure.Error{Op: "open Git store", Object: opts.DataDir, Kind: failure.Invalid, Err: err, Remedy: "give a data folder that can be written to"}
	}
	opts.DataDir = dir
	if opts.MaxFileSize == 0 {
		opts.MaxFileSize = DefaultMaxFileSize
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{opts: opts, ctx: ctx, cancel: cancel, repos: map[string]*repo{}, bases: odb.NewCache(baseCacheBytes)}
	s.dropUnused()
	return s, nil
}

// Close ends all fetches and waits for them.
func (s *Store) Close() {
	s.cancel()
	s.work.Wait()
}

// unusedAfter is how long a repository that nobody asks for stays on disk.
const unusedAfter = 30 * 24 * time.Hour

// dropUnused removes repositories that have not been used for long.
func (s *Store) dropUnused() {
	names, _ := filepath.Glob(filepath.Join(s.opts.DataDir, "*.git"))
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(name, usedFile)); err == nil && s.opts.Now().Sub(info.ModTime()) > unusedAfter {
			_ = os.RemoveAll(name)
		}
	}
}

// Fetch brings the state that req names up to date with the remote and returns
// it. When the remote has nothing new, that costs one listing of references. Errors are of
// type failure.Error, name the URL without credentials, and are of kind
// Unavailable, Timeout, Denied, NotFound, Invalid or Unsupported; one about a
// signature is an UnverifiedError. What was fetched before stays readable whatever happens.
func (s *Store) Fetch(ctx context.Context, req Request) (source.Artifact, error) {
	if err := req.check(); err != nil {
		return source.Artifact{}, err
	}
	l, err := s.lane(req)
	if err != nil {
		return source.Artifact{}, err
	}
	var artifact source.Artifact
	// When the objects on disk turn out damaged, they are fetched again, once.
	for range 2 {
		var got result
		if got, err = l.fetch(ctx, req.Ref, req.Verify != nil && req.Verify.Tag, req.timeout()); err != nil {
			return source.Artifact{}, err
		}
		if artifact, err = s.show(ctx, l, got, req, false); err == nil {
			l.repo.serve(req.For, got.commit)
			return artifact, nil
		}
		if !l.repo.damaged.Load() && !errors.Is(err, errSuperseded) {
			break
		}
	}
	return source.Artifact{}, err
}

// show makes an artifact of a commit that is on disk, once its signatures are found good.
func (s *Store) show(ctx context.Context, l *lane, got result, req Request, offline bool) (source.Artifact, error) {
	verified, err := l.repo.verify(got, req.Verify)
	if err != nil {
		return source.Artifact{}, err
	}
	modules, err := s.modules(ctx, l, got, req, offline)
	if err != nil {
		return source.Artifact{}, err
	}
	artifact, err := l.repo.artifact(got, req, modules, s.opts.MaxFileSize)
	artifact.Verified = verified
	return artifact, err
}

// Recall returns the revision that Fetch has returned last for the same For, perhaps to
// another process, from the disk alone. The request's Verify, Auth, Proxy, Ref and Timeout do not
// matter. It is an error of kind NotFound when the revision is another one or not there
// any more: what others fetched from the same URL is not for everybody.
func (s *Store) Recall(ctx context.Context, req Request, revision string) (source.Artifact, error) {
	l, err := s.lane(req)
	if err != nil {
		return source.Artifact{}, err
	}
	gone := &failure.Error{
		Op: "recall", Object: l.display + " at " + revision, Kind: failure.NotFound,
		Err: errors.New("it is not in the data folder"), Remedy: "it is fetched again when the server can be reached",
	}
	_, name, _ := strings.Cut(revision, "sha1:")
	commit, err := odb.ParseHash(name)
	if err != nil {
		return source.Artifact{}, gone
	}
	if err := l.repo.open(ctx); err != nil {
		return source.Artifact{}, err
	}
	if !l.repo.has(commit) || !l.repo.mayRecall(req.For, commit) {
		return source.Artifact{}, gone
	}
	req.Verify = nil // it was verified when it was fetched
	return s.show(ctx, l, result{commit: commit, revision: revision}, req, true)
}

// lane returns the repository of a request as seen with its credentials.
func (s *Store) lane(req Request) (*lane, error) {
	u, err := parseURL(req.URL)
	if err != nil {
		return nil, err
	}
	display := redacted(u)
	if to := s.mirror(u); to != "" {
		if u, err = parseURL(to); err != nil {
			return nil, err
		}
		display = redacted(u) + " (mirror of " + display + ")"
	}
	if u.User != nil && u.Scheme != "ssh" && req.Auth.BearerToken == "" {
		if req.Auth.Username == "" {
			req.Auth.Username = u.User.Username()
		}
		if req.Auth.Password == "" {
			req.Auth.Password, _ = u.User.Password()
		}
	}
	if u.Scheme != "ssh" {
		u.User = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := u.String()
	r := s.repos[key]
	if r == nil {
		sum := sha256.Sum256([]byte(key))
		dir := filepath.Join(s.opts.DataDir, hex.EncodeToString(sum[:16])+".git")
		r = newRepo(s, dir, redacted(u))
		s.repos[key] = r
	}
	return r.lane(u, display, req.Auth, req.Proxy)
}

// mirror returns what a URL is replaced by, or "".
func (s *Store) mirror(u *url.URL) string {
	bare := *u
	if u.Scheme != "ssh" {
		bare.User = nil
	}
	return s.opts.Mirrors.Of(bare.String())
}

// parseURL reads a repository's URL.
func parseURL(s string) (*url.URL, error) {
	bad := func(why string) error {
		// The text may hold a password where it cannot be told from the rest.
		return &failure.Error{
			Op: "read repository URL", Kind: failure.Invalid, Err: errors.New(why),
			Remedy: "use a URL like https://host/path or ssh://git@host/path",
		}
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, bad("it cannot be parsed")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "ssh":
		return nil, bad(fmt.Sprintf("the scheme is %q and not http, https or ssh", u.Scheme))
	case u.Hostname() == "":
		return nil, bad("it has no host")
	}
	u.Fragment = ""
	return u, nil
}

// redacted prints a URL without credentials. A user name for HTTP may be a token, so it goes too.
func redacted(u *url.URL) string {
	c := *u
	if c.Scheme == "ssh" && c.User != nil {
		c.User = url.User(c.User.Username())
	} else {
		c.User = nil
	}
	c.RawQuery = ""
	return c.String()
}
