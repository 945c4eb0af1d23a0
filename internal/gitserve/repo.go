package gitserve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Repo is a bare repository on disk that can be written to without a work tree.
type Repo struct {
	// Dir is the repository's folder.
	Dir string
}

// Init makes the bare repository root/name, with its HEAD on branch. It is
// no error when the repository is there already.
func Init(ctx context.Context, root, name, branch string) (*Repo, error) {
	dir := filepath.Join(root, filepath.FromSlash(name))
	cmd := Command(ctx, "init", "--quiet", "--bare", "--template=", "--initial-branch="+branch, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, gitError("create repository", dir, out, err)
	}
	return &Repo{Dir: dir}, nil
}

// File is one file of a commit.
type File struct {
	// Data is the content; for a symbolic link its destination.
	Data []byte
	// Mode is a Git mode: "100644" (also when empty), "100755", "120000" for
	// a symbolic link, "160000" for a submodule, whose Data is a commit.
	Mode string
}

// Commit says what a commit does to a branch.
type Commit struct {
	Branch  string
	Message string
	// When is the author's and committer's time.
	When time.Time
	// Files are written, by slash-separated path.
	Files map[string]File
	// Delete are paths of files or folders to remove.
	Delete []string
	// Replace starts from an empty tree: what Files does not hold is gone.
	Replace bool
	// Orphan gives the commit no parent: the branch's history is rewritten.
	Orphan bool
}

// Commit writes one commit and moves its branch there; it returns the commit's hash.
func (r *Repo) Commit(ctx context.Context, c Commit) (string, error) {
	parent := ""
	if !c.Orphan {
		parent, _ = r.Resolve(ctx, "refs/heads/"+c.Branch)
	}
	var in, stderr bytes.Buffer
	writeStream(&in, c, parent)
	cmd := Command(ctx, "-C", r.Dir, "fast-import", "--quiet", "--force")
	cmd.Stdin, cmd.Stderr = &in, &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", gitError("commit to", r.Dir, stderr.Bytes(), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// writeStream writes a commit in the format of git fast-import.
func writeStream(w *bytes.Buffer, c Commit, parent string) {
	fmt.Fprintf(w, "commit refs/heads/%s\nmark :1\n", c.Branch)
	fmt.Fprintf(w, "committer Bowline <bowline@localhost> %d +0000\n", c.When.Unix())
	fmt.Fprintf(w, "data %d\n%s\n", len(c.Message), c.Message)
	if parent != "" {
		fmt.Fprintf(w, "from %s\n", parent)
	}
	if c.Replace || c.Orphan {
		fmt.Fprintln(w, "deleteall")
	}
	for _, name := range c.Delete {
		fmt.Fprintf(w, "D %s\n", quote(name))
	}
	for _, name := range sortedKeys(c.Files) {
		f := c.Files[name]
		mode := f.Mode
		if mode == "" {
			mode = "100644"
		}
		if mode == "160000" {
			fmt.Fprintf(w, "M 160000 %s %s\n", f.Data, quote(name))
			continue
		}
		fmt.Fprintf(w, "M %s inline %s\ndata %d\n%s\n", mode, quote(name), len(f.Data), f.Data)
	}
	fmt.Fprint(w, "\nget-mark :1\ndone\n")
}

// CommitDir makes the branch hold exactly the files of dir, as one commit.
// Executable bits and symbolic links are kept; a folder named .git is left out.
func (r *Repo) CommitDir(ctx context.Context, dir string, c Commit) (string, error) {
	c.Files, c.Replace = map[string]File{}, true
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		f, err := readFile(p, d)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		c.Files[filepath.ToSlash(rel)] = f
		return err
	})
	if err != nil {
		return "", &failure.Error{Op: "read folder", Object: dir, Kind: failure.Invalid, Err: err}
	}
	return r.Commit(ctx, c)
}

func readFile(p string, d fs.DirEntry) (File, error) {
	if d.Type()&fs.ModeSymlink != 0 {
		to, err := os.Readlink(p)
		return File{Data: []byte(to), Mode: "120000"}, err
	}
	info, err := d.Info()
	if err != nil {
		return File{}, err
	}
	mode := "100644"
	if info.Mode()&0o100 != 0 {
		mode = "100755"
	}
	data, err := os.ReadFile(p)
	return File{Data: data, Mode: mode}, err
}

// Resolve returns the hash that a reference or other revision stands for.
func (r *Repo) Resolve(ctx context.Context, rev string) (string, error) {
	out, err := Command(ctx, "-C", r.Dir, "rev-parse", "--verify", "--quiet", rev).Output()
	if err != nil {
		return "", &failure.Error{Op: "resolve", Object: rev, Kind: failure.NotFound, Err: errors.New("no such revision")}
	}
	return strings.TrimSpace(string(out)), nil
}

// SetRef makes a full reference name, such as "refs/tags/v1", point at a revision.
func (r *Repo) SetRef(ctx context.Context, ref, rev string) error {
	return r.run(ctx, "update-ref", ref, rev)
}

// DeleteRef removes a reference by its full name.
func (r *Repo) DeleteRef(ctx context.Context, ref string) error {
	return r.run(ctx, "update-ref", "-d", ref)
}

// TagAnnotated makes an annotated tag at a revision.
func (r *Repo) TagAnnotated(ctx context.Context, tag, rev, message string) error {
	return r.run(ctx, "-c", "user.name=Bowline", "-c", "user.email=bowline@localhost", "tag", "--force", "-a", "-m", message, tag, rev)
}

func (r *Repo) run(ctx context.Context, args ...string) error {
	cmd := Command(ctx, append([]string{"-C", r.Dir}, args...)...)
	cmd.Stdout = io.Discard
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return gitError("run git "+args[0]+" in", r.Dir, stderr.Bytes(), err)
	}
	return nil
}

func gitError(op, object string, out []byte, err error) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if line != "" {
		err = fmt.Errorf("%s: %w", line, err)
	}
	return &failure.Error{Op: op, Object: object, Kind: failure.Unavailable, Err: err}
}

// quote writes a path so that fast-import takes any byte in it.
func quote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name) + `"`
}

func sortedKeys(m map[string]File) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
