package kustomize

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// mount is where kustomize sees the tree. It wants absolute paths; whatever is
// not below mount leaves the repository.
const mount = "/@"

// fileSystem shows a tree to kustomize, with the root kustomization laid over it.
type fileSystem struct {
	r *reader
	// overlay holds files by tree name that are not what the tree has there.
	overlay map[string][]byte
	// clones shows the folders into which kustomize clones remote bases; nil
	// where there are none.
	clones filesys.FileSystem
}

var _ filesys.FileSystem = (*fileSystem)(nil)

var errReadOnly = errors.New("the repository is read only")

// name returns the tree name of p, and an error where p is outside.
func (f *fileSystem) name(p string) (string, error) {
	p = path.Clean(p)
	if p == mount {
		return ".", nil
	}
	name, ok := strings.CutPrefix(p, mount+"/")
	if !ok {
		return "", fmt.Errorf("%s: %w", p, errLeaves)
	}
	return name, nil
}

// cloned reports whether p is in a clone that kustomize made.
func (f *fileSystem) cloned(p string) bool {
	if f.clones == nil {
		return false
	}
	tmp, err := filepath.EvalSymlinks(tempDir())
	return err == nil && strings.HasPrefix(filepath.Clean(p), filepath.Join(tmp, "kustomize-"))
}

func (f *fileSystem) look(p string) kind {
	name, err := f.name(p)
	if err != nil {
		return nothing
	}
	if _, ok := f.overlay[name]; ok {
		return file
	}
	what, err := f.r.look(name)
	if err != nil {
		return nothing
	}
	return what
}

// IsDir implements filesys.FileSystem.
func (f *fileSystem) IsDir(p string) bool {
	if f.cloned(p) {
		return f.clones.IsDir(p)
	}
	return f.look(p) == folder
}

// Exists implements filesys.FileSystem.
func (f *fileSystem) Exists(p string) bool {
	if f.cloned(p) {
		return f.clones.Exists(p)
	}
	return f.look(p) != nothing
}

// CleanedAbs implements filesys.FileSystem. The tree follows links itself.
func (f *fileSystem) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	if f.cloned(p) {
		return f.clones.CleanedAbs(p)
	}
	if _, err := f.name(p); err != nil {
		return "", "", err
	}
	p = path.Clean(p)
	switch f.look(p) {
	case folder:
		return filesys.ConfirmedDir(p), "", nil
	case file:
		return filesys.ConfirmedDir(path.Dir(p)), path.Base(p), nil
	case nothing:
	}
	if f.r.err != nil {
		return "", "", f.r.err
	}
	return "", "", &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
}

// ReadFile implements filesys.FileSystem.
func (f *fileSystem) ReadFile(p string) ([]byte, error) {
	if f.cloned(p) {
		data, err := f.clones.ReadFile(p)
		return data, errors.Join(err, checkAliases(data))
	}
	name, err := f.name(p)
	if err != nil {
		return nil, err
	}
	if data, ok := f.overlay[name]; ok {
		return data, nil
	}
	// kustomize tries a resource as a file before it takes it for a folder. That
	// must not record what the folder lists.
	if what, err := f.r.look(name); err == nil && what == folder {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errIsFolder}
	}
	data, err := f.r.file(name)
	if err == nil {
		if err = checkAliases(data); err != nil {
			err = f.r.fail(name, invalidYAML(name, err))
		}
	}
	return data, err
}

// ReadDir implements filesys.FileSystem.
func (f *fileSystem) ReadDir(p string) ([]string, error) {
	if f.cloned(p) {
		return f.clones.ReadDir(p)
	}
	name, err := f.name(p)
	if err != nil {
		return nil, err
	}
	entries, err := f.r.list(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// RemoveAll implements filesys.FileSystem; kustomize tidies its clones with it.
func (f *fileSystem) RemoveAll(p string) error {
	if f.cloned(p) {
		return f.clones.RemoveAll(p)
	}
	return errReadOnly
}

// Create implements filesys.FileSystem and fails: a build writes nothing.
func (f *fileSystem) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir implements filesys.FileSystem and fails: a build writes nothing.
func (f *fileSystem) Mkdir(string) error { return errReadOnly }

// MkdirAll implements filesys.FileSystem and fails: a build writes nothing.
func (f *fileSystem) MkdirAll(string) error { return errReadOnly }

// WriteFile implements filesys.FileSystem and fails: a build writes nothing.
func (f *fileSystem) WriteFile(string, []byte) error { return errReadOnly }

// Open implements filesys.FileSystem and fails: builds read whole files.
func (f *fileSystem) Open(string) (filesys.File, error) { return nil, errors.ErrUnsupported }

// Glob implements filesys.FileSystem and fails: no kustomization has patterns.
func (f *fileSystem) Glob(string) ([]string, error) { return nil, errors.ErrUnsupported }

// Walk implements filesys.FileSystem and fails: kustomize walks only to copy.
func (f *fileSystem) Walk(string, filepath.WalkFunc) error { return errors.ErrUnsupported }
