package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// fetch is one way from a list to an artifact. The caller holds the lane.
type fetch struct {
	store *Store
	lane  *lane
	req   Request
	where location

	// known is what has been downloaded, by key and tag; it is read when it is needed.
	known map[string]entry
	// fresh is what of that was downloaded now.
	fresh []entry
}

// entry is an object that has been downloaded, or is too large for that.
type entry struct {
	Key  string
	Tag  string
	Size int64
	// Sum is the SHA-256 of the content in hexadecimal, "" of an object that is too large.
	Sum string `json:",omitempty"`
}

func identity(key, tag string) string { return key + "\x00" + tag }

// once lists the bucket and downloads what is new. errMoved says that it changed meanwhile.
func (f *fetch) once(ctx context.Context) (source.Artifact, error) {
	timed, cancel := context.WithTimeout(ctx, f.req.timeout())
	defer cancel()
	if err := again(timed, f.lane.client, func() error { return f.lane.client.begin(timed) }); err != nil {
		return source.Artifact{}, f.explain(timed, "log in to", err)
	}
	l := &listing{fetch: f, ctx: timed}
	if err := l.run(); err != nil {
		return source.Artifact{}, f.moved(f.explain(timed, "list", err), err)
	}
	signature := l.signature()
	if s := f.lane.shown; s != nil && s.signature == signature && !s.tree.damaged.Load() {
		return s.artifact, nil
	}
	entries, err := f.download(ctx, l.wanted())
	if err != nil {
		f.keep()
		return source.Artifact{}, err
	}
	st := state{Location: f.where.id(), Revision: l.revision(), Entries: entries}
	made, err := f.store.show(st)
	if err != nil {
		return source.Artifact{}, f.explain(ctx, "read", err)
	}
	made.signature = signature
	f.lane.shown = made
	f.store.blobs.save(f.req.For, st)
	f.store.blobs.sweep(false)
	return made.artifact, nil
}

// moved lets through what Fetch has to know.
func (f *fetch) moved(explained, err error) error {
	if errors.Is(err, errMoved) {
		return errMoved
	}
	return explained
}

// keep notes what has been downloaded before a fetch failed, so that the next one goes on from there.
func (f *fetch) keep() {
	if len(f.fresh) == 0 {
		return
	}
	st := f.store.blobs.state(f.req.For)
	if st.Location != f.where.id() {
		st = state{Location: f.where.id()}
	}
	st.Pending = append(st.Pending, f.fresh...)
	f.store.blobs.save(f.req.For, st)
	f.fresh = nil
}

// find returns what has been downloaded of an object.
func (f *fetch) find(o object) (entry, bool) {
	if f.known == nil {
		f.known = map[string]entry{}
		if st := f.store.blobs.state(f.req.For); st.Location == f.where.id() {
			for _, e := range append(st.Entries, st.Pending...) {
				f.known[identity(e.Key, e.Tag)] = e
			}
		}
	}
	e, ok := f.known[identity(o.key, o.etag)]
	if !ok || e.Sum != "" && !f.store.blobs.has(e.Sum, e.Size) {
		return entry{}, false
	}
	if e.Sum == "" && o.size <= f.store.opts.MaxFileSize {
		return entry{}, false // the limit was another one
	}
	return e, true
}

// download returns all objects as entries, in their order. Those that are not here are downloaded, some at a time.
func (f *fetch) download(ctx context.Context, objects []object) ([]entry, error) {
	timed, cancel := context.WithTimeout(ctx, f.req.timeout())
	defer cancel()
	entries := make([]entry, len(objects))
	var missing []int
	for i, o := range objects {
		if e, ok := f.find(o); ok {
			entries[i] = e
		} else {
			missing = append(missing, i)
		}
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards next, first and f.fresh
		first error
		next  int
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || next == len(missing) {
			return 0, false
		}
		next++
		return missing[next-1], true
	}
	for range min(downloads, len(missing)) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				e, err := f.get(timed, objects[i])
				mu.Lock()
				if err != nil && first == nil {
					first = f.moved(f.explain(timed, fmt.Sprintf("download %q from", objects[i].key), err), err)
					cancel()
				}
				if err == nil {
					entries[i] = e
					f.fresh = append(f.fresh, e)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return entries, first
}

// get downloads one object, or nothing of one that is too large to be read.
func (f *fetch) get(ctx context.Context, o object) (entry, error) {
	e := entry{Key: o.key, Tag: o.etag, Size: o.size}
	if o.size > f.store.opts.MaxFileSize {
		return e, nil
	}
	err := again(ctx, f.lane.client, func() error {
		body, err := f.lane.client.open(ctx, o)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		e.Sum, e.Size, err = f.store.blobs.put(io.LimitReader(body, f.store.opts.MaxFileSize+1))
		return err
	})
	if err == nil && e.Size > f.store.opts.MaxFileSize { // it was compressed, or the list was wrong
		e.Sum = ""
	}
	return e, err
}

// listing is what a server lists, as far as it is wanted. The rules of what is not are in the
// bucket itself: they are read when the list comes to where their file would be.
type listing struct {
	*fetch
	ctx context.Context //nolint:containedctx // for as long as the listing runs

	// held is what was listed before the rules were known.
	held    []object
	known   bool
	rules   gitignore.Matcher
	ignores *object
	shown   []object
	bytes   int64
}

func (l *listing) run() error {
	var err error
	if !strings.HasPrefix(snapshot.IgnoreFile, l.req.Prefix) {
		err = l.lookUp() // it is not among what is listed
	}
	if err == nil {
		err = l.collect()
	}
	if errors.Is(err, errOrder) {
		if err = l.lookUp(); err == nil {
			err = l.collect()
		}
	}
	if err == nil && !l.known {
		err = l.learn(nil)
	}
	if err != nil {
		return err
	}
	slices.SortFunc(l.shown, func(a, b object) int { return strings.Compare(a.key, b.key) })
	l.shown = withoutStubs(l.shown)
	return nil
}

func (l *listing) collect() error {
	return again(l.ctx, l.lane.client, func() error {
		l.held, l.shown, l.bytes = nil, nil, 0
		return l.lane.client.list(l.ctx, l.req.Prefix, l.visit)
	})
}

// lookUp learns the rules before anything is listed.
func (l *listing) lookUp() error {
	l.held = nil
	found, err := l.ignoreFile()
	if err != nil {
		return err
	}
	return l.learn(found)
}

// ignoreFile looks for the file of rules. Who may read below a prefix alone may be refused.
func (l *listing) ignoreFile() (*object, error) {
	var found *object
	err := again(l.ctx, l.lane.client, func() error {
		return l.lane.client.list(l.ctx, snapshot.IgnoreFile, func(o object) error {
			if o.key == snapshot.IgnoreFile {
				found = &o
			}
			return nil
		})
	})
	if r, ok := l.lane.client.reply(err); ok && r.status == 403 {
		return nil, nil
	}
	return found, err
}

func (l *listing) visit(o object) error {
	switch {
	case strings.HasSuffix(o.key, "/"):
		return nil // stands for a folder, and has no content
	case l.known && o.key == snapshot.IgnoreFile && l.ignores == nil:
		return fmt.Errorf("%w: it lists %s late", errOrder, snapshot.IgnoreFile)
	case l.known:
		return l.take(o)
	case o.key == snapshot.IgnoreFile:
		return l.learn(&o)
	case o.key > snapshot.IgnoreFile:
		if err := l.learn(nil); err != nil {
			return err
		}
		return l.take(o)
	default:
		l.held = append(l.held, o)
		return l.few(len(l.held))
	}
}

// errOrder says that a server does not list in the order of keys.
var errOrder = errors.New("the server does not list objects in the order of their keys")

// learn reads the rules and takes what was held back for want of them.
func (l *listing) learn(file *object) error {
	var patterns []gitignore.Pattern
	if file != nil {
		e, ok := l.find(*file)
		if !ok {
			var err error
			if e, err = l.get(l.ctx, *file); err != nil {
				return err
			}
			l.fetch.known[identity(e.Key, e.Tag)] = e
			l.fresh = append(l.fresh, e)
		}
		if e.Sum == "" {
			return l.refuse(file.key, fmt.Errorf("it has %d bytes, more than the limit of %d", file.size, l.store.opts.MaxFileSize), "make it smaller")
		}
		text, err := l.store.blobs.read(e.Sum)
		if err != nil {
			return err
		}
		patterns = snapshot.ParseIgnore(string(text), nil)
	}
	if l.req.Ignore != nil {
		patterns = append(patterns, snapshot.ParseIgnore(*l.req.Ignore, nil)...)
	}
	l.known, l.ignores, l.rules = true, file, gitignore.NewMatcher(patterns)
	held := l.held
	l.held = nil
	for _, o := range held {
		if err := l.take(o); err != nil {
			return err
		}
	}
	return nil
}

// take adds an object to what is shown, unless the rules leave it out.
func (l *listing) take(o object) error {
	if o.key == snapshot.IgnoreFile || l.rules.Match(strings.Split(o.key, "/"), false) {
		return nil
	}
	if why := badKey(o.key); why != "" {
		return l.refuse(o.key, errors.New(why), "rename the object, or leave it out with spec.ignore or a .sourceignore file")
	}
	if l.shown = append(l.shown, o); o.size <= l.store.opts.MaxFileSize {
		l.bytes += o.size
	}
	if l.bytes > l.store.opts.MaxBytes {
		return l.refuse("", fmt.Errorf("its objects have more than %d bytes together", l.store.opts.MaxBytes), "leave out what is not needed, with spec.prefix or spec.ignore")
	}
	return l.few(len(l.shown))
}

func (l *listing) few(n int) error {
	if n > l.store.opts.MaxObjects {
		return l.refuse("", fmt.Errorf("it has more than %d objects", l.store.opts.MaxObjects), "leave out what is not needed, with spec.prefix or spec.ignore")
	}
	return nil
}

func (l *listing) refuse(key string, err error, remedy string) error {
	what := l.where.display
	if key != "" {
		what = fmt.Sprintf("object %q of %s", short(key), what)
	}
	return &failure.Error{Op: "take", Object: what, Kind: failure.Invalid, Err: err, Remedy: remedy}
}

// withoutStubs leaves out what stands for a folder: objects that are empty and have others below them.
// The objects are in the order of keys.
func withoutStubs(objects []object) []object {
	out := make([]object, 0, len(objects))
	for _, o := range objects {
		below := o.key + "/"
		i, _ := slices.BinarySearchFunc(objects, below, func(o object, key string) int { return strings.Compare(o.key, key) })
		if o.size == 0 && i < len(objects) && strings.HasPrefix(objects[i].key, below) {
			continue
		}
		out = append(out, o)
	}
	return out
}

// wanted is what belongs to the artifact: also the file of rules, which does not count for the revision.
func (l *listing) wanted() []object {
	if l.ignores == nil {
		return l.shown
	}
	return append([]object{*l.ignores}, l.shown...)
}

// revision names what is listed as the toolkit does: by the digest of lines with a key and its tag,
// in the order of keys.
func (l *listing) revision() string {
	h := sha256.New()
	for _, o := range l.shown {
		fmt.Fprintf(h, "%s %s\n", o.key, o.etag)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// signature tells one artifact from another.
func (l *listing) signature() string {
	text := l.where.id() + "\n" + l.revision()
	if l.ignores != nil {
		text += "\n" + l.ignores.etag
	}
	return text
}
