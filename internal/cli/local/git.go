package local

import (
	"bytes"
	"context"
	"io/fs"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
)

// The plane's own repository.
const (
	Repository = "fleet.git"
	Branch     = "main"
)

// GitRoot is the folder of the bare repositories that the plane serves.
func (p *Plane) GitRoot() string { return p.Path("git") }

// Seed makes the plane's repository from the files of an example, unless it has a commit already:
// what people pushed is never overwritten. It reports whether it made one.
func (p *Plane) Seed(ctx context.Context, example string, files fs.FS) (bool, error) {
	repo, err := gitserve.Init(ctx, p.GitRoot(), Repository, Branch)
	if err != nil {
		return false, err
	}
	if _, err := repo.Resolve(ctx, "refs/heads/"+Branch); err == nil {
		return false, nil
	}
	c := gitserve.Commit{Branch: Branch, Message: "Start with the example " + example + "\n", When: time.Now(), Files: map[string]gitserve.File{}}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		c.Files[name] = gitserve.File{Data: data, Mode: mode(data)}
		return err
	})
	if err != nil {
		return false, &failure.Error{Op: "read", Object: "the example " + example, Kind: failure.Invalid, Err: err}
	}
	_, err = repo.Commit(ctx, c)
	return err == nil, err
}

// mode is executable for scripts: embedded files carry no mode.
func mode(data []byte) string {
	if bytes.HasPrefix(data, []byte("#!")) {
		return "100755"
	}
	return ""
}
