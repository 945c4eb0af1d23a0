// Package helmrepo is the room of Helm repositories over HTTP. An index is asked for with the tag of
// the state that is at hand, read once per content, version by version, and kept on disk with a
// list of what is where in it; nothing of it stays in memory. Charts are downloaded once and handed to a
// chart.Store.
//
// What credentials have opened is shown to those only who have shown them: a state and a chart are
// remembered per repository, and per asker where there is anything to show.
package helmrepo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/disk"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// The defaults of Options and Request.
const (
	DefaultMaxIndex = 256 << 20
	DefaultTimeout  = time.Minute
)

// Options are the settings of a Store.
type Options struct {
	// Dir is the folder for indexes; one Store at a time may use it.
	Dir string
	// Charts takes what is downloaded.
	Charts *chart.Store
	// Mirrors replace the beginnings of URLs.
	Mirrors reach.Mirrors
	// MaxIndex is the size of an index in bytes; DefaultMaxIndex when 0.
	MaxIndex int64
}

// Request names a repository and says how to get there.
type Request struct {
	// URL is that of the repository, the folder that holds index.yaml.
	URL  string
	Auth Auth
	// PassCredentials sends the credentials to other hosts, too, when the index names such.
	PassCredentials bool
	// Timeout limits one download; DefaultTimeout when 0.
	Timeout time.Duration
	// For identifies who asks, for as long as there is such a one.
	For string
}

func (r Request) timeout() time.Duration {
	if r.Timeout <= 0 {
		return DefaultTimeout
	}
	return r.Timeout
}

// scope is who shares what a repository gave: all who use its URL without anything to
// show, and each alone who shows something.
func (r Request) scope() string {
	if r.Auth.empty() {
		return "url " + r.URL
	}
	return fmt.Sprintf("for %s %t %s", r.For, r.PassCredentials, r.URL)
}

// Store fetches indexes and charts. It is safe for use by many goroutines.
type Store struct {
	options Options
	// transport is what requests go through where a repository has no settings of its own.
	transport *http.Transport
	folder    struct{ indexes, states, charts string }

	turns disk.Turns // at scopes, indexes and charts

	mu sync.Mutex
	// used holds the indexes that were handed out since the start, by scope; guarded by mu.
	used map[string]use
}

// use is when which index was handed out last.
type use struct {
	name string
	at   time.Time
}

// New opens a store.
func New(o Options) (*Store, error) {
	if o.MaxIndex == 0 {
		o.MaxIndex = DefaultMaxIndex
	}
	s := &Store{options: o, transport: reach.Transport(nil, nil, idle), used: map[string]use{}}
	s.folder.indexes, s.folder.states, s.folder.charts = filepath.Join(o.Dir, "indexes"), filepath.Join(o.Dir, "states"), filepath.Join(o.Dir, "charts")
	for _, dir := range []string{s.folder.indexes, s.folder.states, s.folder.charts} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &failure.Error{Op: "open index store", Object: o.Dir, Kind: failure.Invalid, Err: err, Remedy: "give a data folder that can be written to"}
		}
		leftOver, _ := filepath.Glob(filepath.Join(dir, disk.New+"*"))
		for _, name := range leftOver {
			_ = os.Remove(name)
		}
	}
	return s, nil
}

// state is what is known of a repository's index: the one that it gave last, and by
// which marks to ask whether there is another.
type state struct {
	Digest       string `json:"digest"`
	Size         int64  `json:"size"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"lastModified,omitempty"`
}

func (s *Store) stateFile(req Request) string {
	return filepath.Join(s.folder.states, nameOf(req.scope()))
}

func nameOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// known returns the index that the repository gave last, if it is still at hand.
func (s *Store) known(req Request) (state, Index, bool) {
	last, ok := s.standing(s.stateFile(req))
	return last, s.index(last.Digest, last.Size, req), ok
}

// standing reads a state, which says nothing once its index is gone.
func (s *Store) standing(file string) (state, bool) {
	var last state
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &last) != nil || !(Index{name: s.indexName(last.Digest)}).whole() {
		return state{}, false
	}
	return last, true
}

func (s *Store) indexName(digest string) string {
	return filepath.Join(s.folder.indexes, strings.TrimPrefix(digest, "sha256:"))
}

func (s *Store) index(digest string, size int64, req Request) Index {
	of := req.URL
	if u, err := parseURL(req.URL); err == nil {
		of = redacted(u)
	}
	return Index{Digest: digest, Size: size, name: s.indexName(digest), of: of}
}

// Recall returns the index with a digest without asking the repository; a failure of kind
// NotFound unless it is what the repository gave last.
func (s *Store) Recall(req Request, digest string) (Index, error) {
	last, i, ok := s.known(req)
	if !ok || last.Digest != digest {
		return Index{}, &failure.Error{Op: "recall index", Object: digest, Kind: failure.NotFound, Err: errors.New("it is not in the data folder")}
	}
	s.note(req, i)
	return i, nil
}

// note keeps the index from being tidied away.
func (s *Store) note(req Request, i Index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[req.scope()] = use{filepath.Base(i.name), time.Now()}
}

// Fetch returns the newest index. Errors are of kind failure.Invalid (with the line of a broken
// index), Denied, NotFound, Unavailable or Timeout, and show nothing of credentials.
func (s *Store) Fetch(ctx context.Context, req Request) (Index, error) {
	ctx, cancel := context.WithTimeout(ctx, req.timeout())
	defer cancel()
	g, err := s.getter(ctx, req)
	if err != nil {
		return Index{}, err
	}
	defer g.close()
	done, err := s.turns.Take(ctx, req.scope())
	if err != nil {
		return Index{}, g.explain(g.display(g.index), err)
	}
	defer done()
	last, held, ok := s.known(req)
	answer, err := g.get(g.index, map[string]string{"If-None-Match": last.ETag, "If-Modified-Since": last.LastModified})
	if err != nil {
		return Index{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusNotModified && ok {
		s.note(req, held)
		return held, nil
	}
	i, err := s.keep(g, req, answer)
	if err != nil {
		return Index{}, err
	}
	s.note(req, i)
	text, err := json.Marshal(state{Digest: i.Digest, Size: i.Size, ETag: answer.Header.Get("ETag"), LastModified: answer.Header.Get("Last-Modified")})
	if err == nil {
		err = disk.WriteFile(s.stateFile(req), text)
	}
	return i, err
}

// keep writes an index down as it comes, and reads it unless its content is known.
func (s *Store) keep(g *getter, req Request, answer *http.Response) (Index, error) {
	f, err := os.CreateTemp(s.folder.indexes, disk.New)
	if err != nil {
		return Index{}, writing(err)
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	h := sha256.New()
	body := &io.LimitedReader{R: answer.Body, N: s.options.MaxIndex + 1}
	n, err := io.Copy(io.MultiWriter(f, h), body)
	switch {
	case err != nil:
		return Index{}, g.explain(g.display(g.index), err)
	case body.N <= 0:
		return Index{}, &failure.Error{Op: "fetch index", Object: g.display(g.index), Kind: failure.Invalid,
			Err: fmt.Errorf("it has more than %d bytes", s.options.MaxIndex), Remedy: "split the repository"}
	}
	i := s.index("sha256:"+hex.EncodeToString(h.Sum(nil)), n, req)
	done, err := s.turns.Take(g.ctx, i.name) // other repositories may give the same
	if err != nil {
		return Index{}, g.explain(g.display(g.index), err)
	}
	defer done()
	if i.whole() {
		return i, nil
	}
	err = take(g.ctx, f, i.name)
	var broken *indexError
	switch {
	case errors.As(err, &broken):
		return Index{}, &failure.Error{Op: "read index", Object: g.display(g.index), Kind: failure.Invalid, Err: broken, Remedy: "have the index made anew"}
	case err != nil && failure.KindOf(err) == "":
		return Index{}, g.explain(g.display(g.index), err)
	case err != nil:
		return Index{}, err
	}
	if err := errors.Join(f.Sync(), os.Rename(f.Name(), i.name+sentEnding)); err != nil {
		return Index{}, writing(err)
	}
	return i, nil
}

// Chart returns the archive of a version that is in the index of the repository. It is downloaded unless
// the repository has given it before to those who share the scope of the request. An archive that has another digest
// than the index promises is a failure of kind Unavailable, one that is no chart of kind Invalid.
func (s *Store) Chart(ctx context.Context, req Request, name string, v chart.Version) (chart.Chart, error) {
	ctx, cancel := context.WithTimeout(ctx, req.timeout())
	defer cancel()
	g, err := s.getter(ctx, req)
	if err != nil {
		return chart.Chart{}, err
	}
	defer g.close()
	if len(v.URLs) == 0 {
		return chart.Chart{}, &failure.Error{Op: "download chart", Object: name + " " + v.Version, Kind: failure.Invalid,
			Err: errors.New("the index names no URL for it"), Remedy: "have the index made anew"}
	}
	u, err := g.resolve(v.URLs[0])
	if err != nil {
		return chart.Chart{}, err
	}
	link := filepath.Join(s.folder.charts, nameOf(req.scope(), u.String(), v.Digest))
	done, err := s.turns.Take(ctx, link)
	if err != nil {
		return chart.Chart{}, g.explain(g.display(u), err)
	}
	defer done()
	if c, ok := s.linked(link); ok {
		return c, nil
	}
	data, err := g.download(u, v)
	if err != nil {
		return chart.Chart{}, err
	}
	c, err := s.options.Charts.Put(data)
	if err != nil {
		var f *failure.Error
		if errors.As(err, &f) && f.Kind == failure.Invalid {
			err = &failure.Error{Op: "read chart", Object: g.display(u), Kind: failure.Invalid, Err: f, Remedy: "publish it anew"}
		}
		return chart.Chart{}, err
	}
	return c, disk.WriteFile(link, []byte(c.Digest))
}

// linkAge is how old the note of a download may become before it is made anew.
const linkAge = 24 * time.Hour

// linked returns a chart that was downloaded before.
func (s *Store) linked(link string) (chart.Chart, bool) {
	digest, err := os.ReadFile(link)
	if err != nil {
		return chart.Chart{}, false
	}
	c, err := s.options.Charts.Get(string(digest))
	if err != nil {
		return chart.Chart{}, false
	}
	if info, err := os.Stat(link); err == nil && time.Since(info.ModTime()) > linkAge {
		_ = os.Chtimes(link, time.Time{}, time.Now()) // it is still of use
	}
	return c, true
}

// Sweep removes indexes that are older than an age, that nobody was given for as long and whose digest nobody holds
// either, what is known of the repositories that gave them, and notes of downloads that were of no use for a long time.
func (s *Store) Sweep(now time.Time, age time.Duration, held func(digest string) bool) error {
	s.mu.Lock()
	used := map[string]bool{}
	for scope, u := range s.used {
		if now.Sub(u.at) > age && !held("sha256:"+u.name) {
			delete(s.used, scope)
			continue
		}
		used[u.name] = true
	}
	s.mu.Unlock()
	none := func(string) bool { return false }
	return errors.Join(
		disk.Sweep(s.folder.indexes, now, age, func(name string) bool {
			base, _, _ := strings.Cut(name, ".")
			return used[base] || held("sha256:"+base)
		}),
		disk.Sweep(s.folder.states, now, age, func(name string) bool {
			_, ok := s.standing(filepath.Join(s.folder.states, name))
			return ok
		}),
		disk.Sweep(s.folder.charts, now, max(age, 2*linkAge), none),
	)
}
