package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// Strategy says what becomes of a file where there is one already.
type Strategy string

// The strategies of an ArtifactGenerator's copy operations.
const (
	// Overwrite replaces it.
	Overwrite Strategy = "Overwrite"
	// Merge lays the YAML of the new one over the YAML of the old one, as Helm does with
	// values: maps are united, everything else is replaced.
	Merge Strategy = "Merge"
	// Extract copies what a .tar.gz or .tgz file holds instead of the file.
	Extract Strategy = "Extract"
)

// Copy is a copy operation of an ArtifactGenerator: like cp, with the rules of the toolkit's
// source-watcher.
type Copy struct {
	// From is a path, or a pattern of path.Match, in the source. A folder is copied
	// itself, and with "/**" after it only what is in it. Other patterns keep
	// the whole paths of what they match.
	From string
	// To is a path in the tree. With a slash at the end, or when there is a folder, it
	// is where a file goes to; else it is the file's new name.
	To string
	// Exclude has patterns, with ** for any number of folders, of paths in the source
	// or below the part of From that is no pattern. Those without a slash are
	// matched with names too.
	Exclude []string
	// Strategy is Overwrite when empty.
	Strategy Strategy
}

// Copy copies from an artifact. Errors are of kind failure.Invalid or, where the
// source has nothing of that name, failure.NotFound.
func (b *Builder) Copy(a source.Artifact, c Copy) error {
	c.From = strings.TrimPrefix(c.From, "./")
	for _, pattern := range c.Exclude {
		if !doublestar.ValidatePattern(pattern) {
			return invalid(pattern, errors.New("it is no valid pattern to exclude"), "correct spec.artifacts.copy.exclude")
		}
	}
	to, err := inside("the artifact", c.To)
	if err != nil {
		return err
	}
	op := copying{Builder: b, Copy: c, source: a, to: to}
	if strings.ContainsAny(c.From, "*?[]") {
		return op.pattern()
	}
	if op.From, err = inside("the source", c.From); err != nil {
		return err
	}
	return op.path()
}

// copying is one copy operation under way.
type copying struct {
	*Builder
	Copy
	source source.Artifact
	// to is To, cleaned.
	to string
}

// path copies one file or folder.
func (c *copying) path() error {
	n, err := reference(c.source, c.From)
	if err != nil {
		return err
	}
	if n.isDir() {
		if c.Strategy == Extract {
			return invalid(c.From, errors.New("it is a folder, and only archives can be extracted"), "name a .tar.gz or .tgz file, or a pattern of them")
		}
		to := c.to
		if c.From != "." {
			to = path.Join(c.to, path.Base(c.From))
		}
		return c.folder(n, c.From, to)
	}
	if c.excluded(c.From, ".") {
		return nil
	}
	if c.Strategy == Extract {
		if !isArchive(c.From) {
			return invalid(c.From, errors.New("it is no .tar.gz or .tgz file, and only those can be extracted"), "name one, or leave the strategy out")
		}
		return c.extract(c.From)
	}
	to := c.to
	there, err := c.find(to)
	if err != nil {
		return err
	}
	if c.To == "" || strings.HasSuffix(c.To, "/") || there != nil && there.isDir() {
		to = path.Join(to, path.Base(c.From))
	}
	return c.file(n, to)
}

// pattern copies all that a pattern matches.
func (c *copying) pattern() error {
	if strings.HasPrefix(c.From, "/") || strings.Contains("/"+c.From+"/", "/../") {
		return invalid(c.From, errors.New("the path leads outside of the source"), "give a relative path without '..'")
	}
	matches, err := c.matches()
	if err != nil {
		return invalid(c.From, err, "correct the pattern")
	}
	if len(matches) == 0 {
		return &failure.Error{Op: "copy", Object: fmt.Sprintf("%q", c.From), Kind: failure.NotFound,
			Err: errors.New("nothing in the source matches the pattern"), Remedy: "correct the pattern, or add a file that it matches to the source"}
	}
	root, left := c.selection(), 0
	for _, match := range matches {
		if match == "." || c.excluded(match, root) {
			continue
		}
		left++
		if err := c.match(match, root); err != nil {
			return err
		}
	}
	if left == 0 {
		return invalid(c.From, errors.New("everything that the pattern matches is excluded"), "exclude less, or remove the copy operation")
	}
	return nil
}

func (c *copying) matches() ([]string, error) {
	if c.Strategy == Extract {
		return doublestar.Glob(c.source.Tree, c.From, doublestar.WithNoFollow())
	}
	look := &looking{FS: c.source.Tree, left: mostLooks}
	found, err := fs.Glob(look, c.From)
	if err == nil && look.left < 0 {
		err = invalid(c.From, fmt.Errorf("the pattern makes one look at more than %d files and folders", mostLooks),
			"name folders instead of wildcards; symbolic links to folders above multiply what there is")
	}
	return found, err
}

// mostLooks is how many entries of folders one pattern may look at: links that lead
// upwards make endlessly many of a few.
const mostLooks = 100_000

// looking is a file system that shows no more entries than are left. It is for one
// goroutine.
type looking struct {
	fs.FS
	left int
}

var errLooks = errors.New("too many entries")

// ReadDir implements fs.ReadDirFS.
func (l *looking) ReadDir(name string) ([]fs.DirEntry, error) {
	if l.left < 0 {
		return nil, errLooks
	}
	entries, err := fs.ReadDir(l.FS, name)
	l.left -= len(entries) + 1
	return entries, err
}

// Stat implements fs.StatFS.
func (l *looking) Stat(name string) (fs.FileInfo, error) { return fs.Stat(l.FS, name) }

// match copies one thing that the pattern matched.
func (c *copying) match(match, root string) error {
	if c.Strategy == Extract {
		if !isArchive(match) {
			return nil // as the toolkit has it
		}
		return c.extract(match)
	}
	to := path.Join(c.to, match)
	if dir, ok := strings.CutSuffix(c.From, "/**"); ok {
		if rel, ok := strings.CutPrefix(match, dir+"/"); ok {
			to = path.Join(c.to, rel)
		}
	}
	n, err := reference(c.source, match)
	if errors.Is(err, failure.Of(failure.NotFound)) || errors.Is(err, failure.Of(failure.Invalid)) {
		return nil // a symbolic link to nothing, or to outside, that a pattern happens to match
	}
	if err != nil {
		return err
	}
	if n.isDir() {
		return c.folder(n, root, to)
	}
	return c.file(n, to)
}

// selection returns the part of the pattern before the first wildcard.
func (c *copying) selection() string {
	var parts []string
	for part := range strings.SplitSeq(path.Clean(c.From), "/") {
		if strings.ContainsAny(part, "*?[]") {
			break
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "."
	}
	return path.Join(parts...)
}

// file puts a file of the source at a path.
func (c *copying) file(n *node, to string) error {
	if c.Strategy == Merge {
		old, err := c.find(to)
		if err != nil {
			return err
		}
		if old != nil {
			if n, err = merged(old, n, to); err != nil {
				return err
			}
		}
	}
	return c.lay(to, n)
}

// folder puts a folder of the source at a path, without what is excluded.
func (c *copying) folder(n *node, root, to string) error {
	if len(c.Exclude) > 0 {
		if err := c.prune(n, root); err != nil {
			return err
		}
	}
	return c.lay(to, n)
}

// prune takes what is excluded out of a folder.
func (c *copying) prune(n *node, root string) error {
	if err := n.expand(); err != nil {
		return err
	}
	for name, kid := range n.kids {
		if c.excluded(kid.path, root) {
			delete(n.kids, name)
			continue
		}
		if kid.entry.IsDir() {
			if err := c.prune(kid, root); err != nil {
				return err
			}
		}
	}
	return nil
}

// excluded reports whether a path of the source is left out: by its whole path, by the
// path below root, or by its name.
func (c *copying) excluded(name, root string) bool {
	rel, below := strings.CutPrefix(name, root+"/")
	for _, pattern := range c.Exclude {
		switch {
		case doublestar.MatchUnvalidated(pattern, name),
			!strings.Contains(pattern, "/") && doublestar.MatchUnvalidated(pattern, path.Base(name)),
			below && doublestar.MatchUnvalidated(pattern, rel):
			return true
		}
	}
	return false
}
