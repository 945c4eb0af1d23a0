package git

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

// check finds what is wrong with a request whatever the repository.
func (r Request) check() error {
	for _, dir := range r.Sparse {
		if clean := cleanDir(dir); clean == ".." || strings.HasPrefix(clean, "../") {
			return &failure.Error{
				Op: "read sparse checkout dir", Object: fmt.Sprintf("'%s'", dir), Kind: failure.Invalid,
				Err: errors.New("it leads out of the repository"), Remedy: "correct spec.sparseCheckout",
			}
		}
	}
	return r.Ref.check()
}

// cleanDir takes "./deploy/", "/deploy" and "deploy" for the same.
func cleanDir(dir string) string { return path.Clean(strings.TrimLeft(path.Clean(dir), "/")) }

// only are the paths to show, in order and each once; none when all is shown.
func (r Request) only() []string {
	var out []string
	for _, dir := range r.Sparse {
		out = append(out, cleanDir(dir))
	}
	slices.Sort(out)
	if out = slices.Compact(out); slices.Contains(out, ".") {
		return nil
	}
	return out
}

// view names what the request shows of a commit, but for what it ignores.
func (r Request) view() string { return fmt.Sprintf("%t %q", r.Submodules, r.only()) }

// sparseError says of a missing directory what the source controller says.
func (r *repo) sparseError(req Request, err error) error {
	var f *failure.Error
	if !errors.As(err, &f) || f.Kind != failure.NotFound {
		return err
	}
	dir := f.Object
	for _, d := range req.Sparse {
		if cleanDir(d) == f.Object {
			dir = d
		}
	}
	return &failure.Error{
		Op: "sparse checkout of", Object: r.display, Kind: failure.NotFound,
		Err: fmt.Errorf("sparse checkout dir '%s' does not exist in repository", dir), Remedy: "correct spec.sparseCheckout",
	}
}
