package kustomize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// reader reads a tree, records what it read, and stops reading once its
// context is done. It is not safe for concurrent use. Names are those of io/fs.
type reader struct {
	ctx   context.Context
	tree  source.Tree
	reads build.Reads
	// data holds the files that were read.
	data map[string][]byte
	// err is the first failure other than absence: of the context, of a link
	// that leads outside, of the source. It outranks what kustomize makes of it.
	err error
}

func newReader(ctx context.Context, tree source.Tree) *reader {
	return &reader{ctx: ctx, tree: tree, reads: build.Reads{}, data: map[string][]byte{}}
}

// note records the state of name and reports whether anything is there.
func (r *reader) note(name string) (bool, error) {
	if err := r.check(); err != nil {
		return false, err
	}
	if hash, ok := r.reads[name]; ok && hash != build.Folder {
		return hash != build.Absent, nil
	}
	hash, err := r.tree.Hash(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.reads[name] = build.Absent
		return false, nil
	case err != nil:
		return false, r.fail(name, err)
	}
	r.reads[name] = hash
	return true, nil
}

// file returns the content of the file at name; the error matches
// fs.ErrNotExist where there is none, and errIsFolder where a folder is. The
// content must not be changed.
func (r *reader) file(name string) ([]byte, error) {
	if data, ok := r.data[name]; ok {
		return data, r.check()
	}
	before, known := r.reads[name]
	there, err := r.note(name)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	data, err := r.tree.ReadFile(name)
	if err != nil {
		if info, serr := r.tree.Stat(name); serr == nil && info.IsDir() {
			if !known {
				before = build.Folder
			}
			r.reads[name] = before // what it lists was of no interest
			return nil, &fs.PathError{Op: "read", Path: name, Err: errIsFolder}
		}
		return nil, r.fail(name, err)
	}
	r.data[name] = data
	return data, nil
}

var errIsFolder = errors.New("is a folder")

// list returns the entries of the folder at name.
func (r *reader) list(name string) ([]fs.DirEntry, error) {
	there, err := r.note(name)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	entries, err := r.tree.ReadDir(name)
	if err != nil {
		return nil, r.fail(name, err)
	}
	return entries, nil
}

// kind is what can be at a path.
type kind int

const (
	nothing kind = iota
	file
	folder
)

// look says what is at name. Only that is recorded of a folder, not what it
// lists.
func (r *reader) look(name string) (kind, error) {
	if err := r.check(); err != nil {
		return nothing, err
	}
	if _, read := r.data[name]; read {
		return file, nil
	}
	switch r.reads[name] {
	case build.Folder:
		return folder, nil
	case build.Absent:
		if _, ok := r.reads[name]; ok {
			return nothing, nil
		}
	}
	info, err := r.tree.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.reads[name] = build.Absent
		return nothing, nil
	case err != nil:
		return nothing, r.fail(name, err)
	case info.IsDir():
		if _, listed := r.reads[name]; !listed {
			r.reads[name] = build.Folder
		}
		return folder, nil
	}
	_, err = r.note(name)
	return file, err
}

func (r *reader) check() error {
	if r.err == nil && r.ctx.Err() != nil {
		r.err = timeout(r.ctx)
	}
	return r.err
}

func (r *reader) fail(name string, err error) error {
	if r.err == nil {
		if failure.KindOf(err) == "" {
			err = &failure.Error{Op: "read", Kind: failure.Unavailable, Object: name, Err: err}
		}
		r.err = err
	}
	return r.err
}

func timeout(ctx context.Context) error {
	return &failure.Error{Op: "build", Kind: failure.Timeout, Err: fmt.Errorf("stopped: %w", context.Cause(ctx)),
		Remedy: "raise spec.timeout if the build needs longer"}
}
