// Package disk is the room of what backends do alike with their data folders: files that are whole or not there,
// work on one of them by one at a time, and tidying up.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// New begins the names of files that are being written. One that a process has left behind may be removed.
const New = "new-"

// WriteFile puts a whole file in place or none. Errors are of kind failure.Unavailable.
func WriteFile(name string, data []byte) error {
	fail := func(err error) error {
		return &failure.Error{Op: "write", Object: filepath.Base(name), Kind: failure.Unavailable, Err: err, Remedy: "check the room and the rights in the data folder"}
	}
	f, err := os.CreateTemp(filepath.Dir(name), New)
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fail(err)
	}
	return nil
}

// Sweep removes the files of a folder that are not used and older than an age.
func Sweep(dir string, now time.Time, age time.Duration, used func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("tidy up the data folder: %w", err)
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.IsDir() || used(e.Name()) || now.Sub(info.ModTime()) < age {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("tidy up the data folder: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Writer tells errors of writing from those of reading, where io.Copy does both.
type Writer struct {
	File *os.File
	// Err is the error of the last write.
	Err error
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	w.Err = err
	return n, err
}

// Turns lets one after the other work on something. The zero value is ready for use by many goroutines.
type Turns struct {
	mu   sync.Mutex
	busy map[string]*turn // guarded by mu; by what they work on
}

type turn struct {
	taken   chan struct{} // holds a token while somebody works
	waiting int           // with who works; guarded by Turns.mu
}

// Take waits for a turn at something; done ends it. It fails when the context ends first, with its cause.
func (t *Turns) Take(ctx context.Context, at string) (done func(), err error) {
	t.mu.Lock()
	mine := t.busy[at]
	if mine == nil {
		mine = &turn{taken: make(chan struct{}, 1)}
		if t.busy == nil {
			t.busy = map[string]*turn{}
		}
		t.busy[at] = mine
	}
	mine.waiting++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.waiting--; mine.waiting == 0 {
			delete(t.busy, at)
		}
	}
	select {
	case mine.taken <- struct{}{}:
		return func() { <-mine.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
