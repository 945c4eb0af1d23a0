package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
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
		f.store.blobs.use(f.req.For)
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
	f.store.sweep()
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
	d := &batch{objects: objects, entries: make([]entry, len(objects)), give: cancel, display: f.where.display, limit: f.store.opts.MaxFileSize, room: f.store.opts.MaxBytes}
	for i, o := range objects {
		if e, ok := f.find(o); ok {
			d.entries[i] = e
			if e.Sum != "" {
				d.room -= e.Size
			}
		} else {
			d.missing = append(d.missing, i)
		}
	}
	var wg sync.WaitGroup
	for range min(downloads, len(d.missing)) {
		wg.Go(func() {
			for i, ok := d.next(); ok; i, ok = d.next() {
				e, err := f.get(timed, objects[i])
				if err != nil {
					err = f.moved(f.explain(timed, fmt.Sprintf("download %q from", short(objects[i].key)), err), err)
				}
				d.done(i, e, err)
			}
		})
	}
	wg.Wait()
	f.fresh = append(f.fresh, d.fresh...)
	return d.entries, d.err
}

// batch is what several downloads share.
type batch struct {
	objects []object
	// give ends what is under way.
	give    func()
	display string
	limit   int64 // of one object, in bytes

	mu      sync.Mutex // guards what follows
	missing []int
	entries []entry
	fresh   []entry
	room    int64 // for what is still to come, in bytes
	err     error
}

// next hands out an object that is missing, and none after a failure.
func (b *batch) next() (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || len(b.missing) == 0 {
		return 0, false
	}
	i := b.missing[0]
	b.missing = b.missing[1:]
	return i, true
}

// done takes what a download came to; the first failure ends the others.
func (b *batch) done(i int, e entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects[i].size <= b.limit { // else it was not downloaded
		b.room -= e.Size
	}
	if err == nil && b.room < 0 { // the list said otherwise
		err = &failure.Error{Op: "download from", Object: b.display, Kind: failure.Invalid, Err: errors.New("its objects are larger than it lists, and too large together"),
			Remedy: "check the server, or leave out what is not needed, with spec.prefix or spec.ignore"}
	}
	switch {
	case err == nil:
		b.entries[i] = e
		b.fresh = append(b.fresh, e)
	case b.err == nil:
		b.err = err
		b.give()
	}
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
