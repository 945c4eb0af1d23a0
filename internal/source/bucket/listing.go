package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

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
	if prefix := l.req.Prefix; len(prefix) > len(snapshot.IgnoreFile) || prefix != snapshot.IgnoreFile[:len(prefix)] {
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
