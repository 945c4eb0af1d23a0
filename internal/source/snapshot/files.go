package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// ReadFile implements source.Tree.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	n, err := t.lookup("read", name)
	if err != nil {
		return nil, err
	}
	if n.dir != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is a folder: %w", fs.ErrInvalid)}
	}
	if t.maxSize > 0 {
		size, err := t.backend.Size(n.entry.ID)
		if err != nil {
			return nil, pathError("read", name, err)
		}
		if size > t.maxSize {
			return nil, &failure.Error{
				Op: "read", Object: name, Kind: failure.Invalid,
				Err:    fmt.Errorf("the file has %d bytes, more than the limit of %d (%s)", size, t.maxSize, mebibytes(t.maxSize)),
				Remedy: "leave it out with a .sourceignore file or take it out of the repository",
			}
		}
	}
	data, err := t.backend.Read(n.entry.ID)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20)) }

// ReadDir implements source.Tree. Symbolic links in the list have the type fs.ModeSymlink.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if n.dir == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fmt.Errorf("it is no folder: %w", fs.ErrInvalid)}
	}
	out := make([]fs.DirEntry, len(n.dir.entries))
	for i := range n.dir.entries {
		out[i] = dirEntry{t, &n.dir.entries[i]}
	}
	return out, nil
}

// Stat implements source.Tree.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	n, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	fi, err := t.info(path.Base(name), n)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return fi, nil
}

func (t *Tree) info(base string, n node) (fs.FileInfo, error) {
	if n.dir != nil {
		return info{name: base, mode: fs.ModeDir | 0o555}, nil
	}
	size, err := t.backend.Size(n.entry.ID)
	return info{name: base, mode: n.entry.mode(), size: size}, err
}

func (e *Entry) mode() fs.FileMode {
	switch {
	case e.Kind == Dir || e.Kind == Module:
		return fs.ModeDir | 0o555
	case e.Kind == Link:
		return fs.ModeSymlink | 0o777
	case e.Exec:
		return 0o555
	default:
		return 0o444
	}
}

// Open implements fs.FS. A file is read as a whole.
func (t *Tree) Open(name string) (fs.File, error) { return OpenIn(t, name) }

// OpenIn implements fs.FS for any tree: a file is read as a whole.
func OpenIn(t source.Tree, name string) (fs.File, error) {
	fi, err := t.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		entries, err := t.ReadDir(name)
		return &openDir{info: fi, name: name, rest: entries}, err
	}
	data, err := t.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: bytes.NewReader(data), info: fi}, nil
}

// Info describes a file or folder that was made, not read.
func Info(name string, mode fs.FileMode, size int64) fs.FileInfo {
	return info{name: name, mode: mode, size: size}
}

type info struct {
	name string
	mode fs.FileMode
	size int64
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }

type dirEntry struct {
	t *Tree
	e *Entry
}

func (d dirEntry) Name() string      { return d.e.Name }
func (d dirEntry) IsDir() bool       { return d.e.mode().IsDir() }
func (d dirEntry) Type() fs.FileMode { return d.e.mode().Type() }
func (d dirEntry) String() string    { return fs.FormatDirEntry(d) }

func (d dirEntry) Info() (fs.FileInfo, error) {
	if d.IsDir() {
		return info{name: d.e.Name, mode: d.e.mode()}, nil
	}
	size, err := d.t.backend.Size(d.e.ID)
	return info{name: d.e.Name, mode: d.e.mode(), size: size}, err
}

type openFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info fs.FileInfo
	name string
	rest []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fmt.Errorf("it is a folder: %w", fs.ErrInvalid)}
}

// ReadDir implements fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := d.rest
		d.rest = nil
		return out, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out, nil
}
