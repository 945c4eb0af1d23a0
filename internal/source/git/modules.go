package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
	"golang.org/x/sync/errgroup"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// The bounds of submodules. The depth is that of go-git, and so of the source controller.
const (
	maxModuleDepth    = 10
	maxModules        = 1000
	maxModuleFileSize = 1 << 20
	modulesAtOnce     = 4
	modulesFile       = ".gitmodules"
)

// module is a commit of a repository that has a place in the tree.
type module struct {
	path   string // "" for the root
	url    string // as found, relative ones resolved
	commit odb.Hash
	lane   *lane
	depth  int
}

// modules finds the submodules of a commit and those below them, and brings
// their commits to disk; those outside of req.Only are left alone. Offline it only looks whether they are there.
func (s *Store) modules(ctx context.Context, l *lane, got result, req Request, offline bool) ([]module, error) {
	if !req.Submodules {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, req.timeout())
	defer cancel()
	var all []module
	level := []module{{url: req.URL, commit: got.commit, lane: l}}
	for len(level) > 0 {
		var next []module
		for _, parent := range level {
			kids, err := s.modulesOf(parent, req)
			if err != nil {
				return nil, err
			}
			next = append(next, kids...)
		}
		if all = append(all, next...); len(all) > maxModules {
			return nil, moduleError(modulesFile, failure.Invalid, fmt.Errorf("there are more than %d submodules", maxModules), "include other sources instead")
		}
		if err := bring(ctx, next, req, offline); err != nil {
			return nil, err
		}
		level = next
	}
	return all, nil
}

// bring fetches what is not there, a few at a time.
func bring(ctx context.Context, modules []module, req Request, offline bool) error {
	var g errgroup.Group
	g.SetLimit(modulesAtOnce)
	for _, m := range modules {
		g.Go(func() error {
			if offline {
				return m.lane.find(ctx, m.commit, m.whom(req))
			}
			err := m.lane.pin(ctx, m.commit, req)
			if err == nil {
				m.lane.repo.serve(m.whom(req), m.commit)
			}
			return withoutModule(m, m.lane.display, err, req)
		})
	}
	return g.Wait()
}

// whom is Request.For of one place in the tree.
func (m module) whom(req Request) string {
	if req.For == "" {
		return ""
	}
	return req.For + " " + m.path
}

// withoutModule turns what went wrong with a submodule's repository into an error that names its place.
func withoutModule(m module, what string, err error, req Request) error {
	var f *failure.Error
	if !errors.As(err, &f) {
		return err
	}
	remedy := f.Remedy
	switch {
	case !sameServer(m.url, req.URL) && (f.Kind == failure.Denied || f.Kind == failure.NotFound || f.Kind == failure.Invalid):
		remedy = "credentials are sent to the server of spec.url only: make it public, or make it a GitRepository of its own and use spec.include"
	case f.Kind == failure.NotFound:
		remedy = "push the commit that is recorded for it, or correct " + modulesFile
	}
	return moduleError(m.path, f.Kind, fmt.Errorf("%s: %w", what, f.Err), remedy)
}

func moduleError(path string, kind failure.Kind, err error, remedy string) error {
	return &failure.Error{Op: "fetch submodule", Object: path, Kind: kind, Err: err, Remedy: remedy}
}

// modulesOf lists the submodules that a commit records. As for git, one that .gitmodules names is
// none unless the tree has a commit in its place.
func (s *Store) modulesOf(parent module, req Request) ([]module, error) {
	r := parent.lane.repo
	db := r.db.Load()
	c, err := commitOf(db, parent.commit)
	if err != nil {
		return nil, r.readError(db, err)
	}
	o, root := objects{r, db}, string(c.tree[:])
	file, found, err := o.entry(root, modulesFile)
	if err != nil || !found {
		return nil, err
	}
	known, err := o.readModules(file, at(parent.path, modulesFile))
	if err != nil {
		return nil, err
	}
	var out []module
	for _, name := range slices.Sorted(maps.Keys(known)) {
		e, found, err := o.entry(root, name)
		if err != nil {
			return nil, err
		}
		m := module{path: at(parent.path, name), depth: parent.depth + 1}
		if !found || e.Kind != snapshot.Module || !snapshot.Shows(req.only(), m.path) {
			continue
		}
		if m.depth > maxModuleDepth {
			return nil, moduleError(m.path, failure.Invalid, fmt.Errorf("submodules are nested more than %d deep", maxModuleDepth), "include other sources instead")
		}
		m.commit = odb.Hash([]byte(e.ID))
		if m.url, err = moduleURL(parent.url, known[name]); err != nil {
			return nil, moduleError(m.path, failure.Invalid, err, "correct its url in "+at(parent.path, modulesFile))
		}
		if m.lane, err = s.lane(Request{URL: m.url, Auth: authFor(req, m.url), Proxy: req.Proxy}); err != nil {
			return nil, withoutModule(m, "its repository", err, req)
		}
		out = append(out, m)
	}
	return out, nil
}

func at(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}

// readModules reads .gitmodules: URLs by path.
func (o objects) readModules(file snapshot.Entry, name string) (map[string]string, error) {
	bad := func(err error) error {
		return &failure.Error{Op: "read", Object: name, Kind: failure.Invalid, Err: err, Remedy: "correct it as gitmodules(5) says"}
	}
	if file.Kind != snapshot.File {
		return nil, bad(errors.New("it is no regular file"))
	}
	size, err := o.Size(file.ID)
	if err != nil {
		return nil, err
	}
	if size > maxModuleFileSize {
		return nil, bad(fmt.Errorf("it has %d bytes, more than %d", size, maxModuleFileSize))
	}
	text, err := o.Read(file.ID)
	if err != nil {
		return nil, err
	}
	parsed := config.New()
	if err := config.NewDecoder(bytes.NewReader(text)).Decode(parsed); err != nil {
		return nil, bad(err)
	}
	out := map[string]string{}
	for _, m := range parsed.Section("submodule").Subsections {
		at := strings.TrimSuffix(m.Option("path"), "/")
		if !fs.ValidPath(at) || at == "." {
			return nil, bad(fmt.Errorf("the path %q of submodule %q leads out of the repository, or nowhere", at, m.Name))
		}
		out[at] = m.Option("url")
	}
	return out, nil
}

// entry finds what is at a path of a folder. Symbolic links lead nowhere here.
func (o objects) entry(folder, name string) (e snapshot.Entry, found bool, err error) {
	e = snapshot.Entry{Kind: snapshot.Dir, ID: folder}
	for seg := range strings.SplitSeq(name, "/") {
		if e.Kind != snapshot.Dir {
			return e, false, nil
		}
		entries, err := o.List(e.ID)
		if err != nil {
			return e, false, err
		}
		i := slices.IndexFunc(entries, func(e snapshot.Entry) bool { return e.Name == seg })
		if i < 0 {
			return e, false, nil
		}
		e = entries[i]
	}
	return e, true, nil
}

// maxPins bounds how many commits a lane remembers.
const maxPins = 4096

// pin brings one commit to disk, with what it takes to see that these credentials may
// have it: a listing of references, once.
func (l *lane) pin(ctx context.Context, commit odb.Hash, req Request) error {
	ref := Ref{Commit: commit.String()}
	l.mu.Lock()
	seen := l.pinned[commit]
	l.mu.Unlock()
	if seen && l.repo.has(commit) && !l.repo.damaged.Load() {
		l.repo.setCurrent(l.key, ref, commit)
		return nil
	}
	if _, err := l.fetch(ctx, ref, false, req.timeout()); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pinned == nil || len(l.pinned) >= maxPins {
		l.pinned = map[odb.Hash]bool{}
	}
	l.pinned[commit] = true
	return nil
}

// find opens the repository on disk and looks for a commit that somebody was given.
func (l *lane) find(ctx context.Context, commit odb.Hash, whom string) error {
	if err := l.repo.open(ctx); err != nil {
		return err
	}
	if l.repo.has(commit) && l.repo.mayRecall(whom, commit) {
		return nil
	}
	return &failure.Error{Op: "recall", Object: l.display + " at " + commit.String(), Kind: failure.NotFound, Err: errors.New("it is not in the data folder")}
}

// union is a snapshot.Backend over several repositories: the ID of what is in a
// submodule ends in the name of its repository. A commit stands for its tree.
type union struct {
	objects

	others map[string]objects
}

// name is what the repository is known by in IDs.
func (r *repo) name() string { return filepath.Base(r.dir) }

const hashSize = len(odb.Hash{})

func (u union) at(id string) (o objects, hash, of string) {
	hash, of = id[:hashSize], id[hashSize:]
	if of == "" {
		return u.objects, hash, ""
	}
	return u.others[of], hash, of
}

// List implements snapshot.Backend.
func (u union) List(id string) ([]snapshot.Entry, error) {
	o, hash, of := u.at(id)
	if of == "" {
		return o.List(hash)
	}
	tree, err := o.treeOf(hash)
	if err != nil {
		return nil, err
	}
	entries, err := o.List(tree)
	for i := range entries {
		if entries[i].Kind != snapshot.Module {
			entries[i].ID += of
		}
	}
	return entries, err
}

// treeOf returns the tree of a commit; a tree is its own.
func (o objects) treeOf(hash string) (string, error) {
	typ, data, err := o.db.Read(odb.Hash([]byte(hash)))
	if err != nil || typ != odb.Commit {
		return hash, o.r.readError(o.db, err)
	}
	tree, err := headerHash(data, "tree ")
	return string(tree[:]), o.r.readError(o.db, err)
}

// Size implements snapshot.Backend.
func (u union) Size(id string) (int64, error) {
	o, hash, _ := u.at(id)
	return o.Size(hash)
}

// Read implements snapshot.Backend.
func (u union) Read(id string) ([]byte, error) {
	o, hash, _ := u.at(id)
	return o.Read(hash)
}

// Hash implements snapshot.Backend.
func (u union) Hash(id string) (string, error) {
	o, hash, _ := u.at(id)
	return o.Hash(hash)
}

// together makes a backend of a repository and its submodules, and says which
// database of each it reads from.
func (r *repo) together(db *odb.DB, modules []module) (backend snapshot.Backend, suffixes map[string]string, uses map[*repo]*odb.DB) {
	uses = map[*repo]*odb.DB{r: db}
	if len(modules) == 0 {
		return objects{r, db}, nil, uses
	}
	u := union{objects{r, db}, map[string]objects{}}
	suffixes = map[string]string{}
	for _, m := range modules {
		of := m.lane.repo
		suffixes[m.path] = of.name()
		if _, known := uses[of]; !known {
			uses[of] = of.db.Load()
		}
		u.others[of.name()] = objects{of, uses[of]}
	}
	return u, suffixes, uses
}
