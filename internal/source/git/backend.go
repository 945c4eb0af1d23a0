package git

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// objects is a snapshot.Backend over a repository; an ID is the 20 bytes of a
// hash. It keeps the database that it began with, whose open files outlive a
// repository that starts over.
type objects struct {
	r  *repo
	db *odb.DB
}

var _ snapshot.Backend = objects{}

func (o objects) List(id string) ([]snapshot.Entry, error) {
	data, err := o.read(id, odb.Tree)
	if err != nil {
		return nil, err
	}
	return parseTree(string(data))
}

// parseTree reads a tree object: "<octal mode> <name>\0<20 bytes of hash>" for
// each entry. Names and IDs are parts of the text that is given.
func parseTree(s string) ([]snapshot.Entry, error) {
	entries := make([]snapshot.Entry, 0, len(s)/40+1)
	for s != "" {
		mode, rest, ok := strings.Cut(s, " ")
		name, rest, ok2 := strings.Cut(rest, "\x00")
		if !ok || !ok2 || len(rest) < 20 || name == "" {
			return nil, fmt.Errorf("%w: a folder that cannot be read", odb.ErrCorrupt)
		}
		e := snapshot.Entry{Name: name, ID: rest[:20]}
		s = rest[20:]
		switch mode {
		case "40000", "040000":
			e.Kind = snapshot.Dir
		case "120000":
			e.Kind = snapshot.Link
		case "160000":
			e.Kind = snapshot.Module
		default:
			e.Exec = mode == "100755"
		}
		// Nobody can mean such a name well, and git itself refuses to check it out.
		if name == "." || name == ".." || strings.Contains(name, "/") {
			continue
		}
		entries = append(entries, e)
	}
	// Git orders folders as if their names ended in a slash.
	slices.SortFunc(entries, func(a, b snapshot.Entry) int { return cmp.Compare(a.Name, b.Name) })
	return entries, nil
}

func (o objects) Size(id string) (int64, error) {
	size, err := o.db.Size(odb.Hash([]byte(id)))
	return size, o.r.readError(o.db, err)
}

func (o objects) Read(id string) ([]byte, error) { return o.read(id, odb.Blob) }

func (o objects) Hash(id string) (string, error) { return hex.EncodeToString([]byte(id)), nil }

func (o objects) read(id string, want odb.Type) ([]byte, error) {
	h := odb.Hash([]byte(id))
	typ, data, err := o.db.Read(h)
	if err == nil && typ != want {
		err = fmt.Errorf("%w: %s is a %s and not a %s", odb.ErrCorrupt, h, typ, want)
	}
	return data, o.r.readError(o.db, err)
}

// readError marks the repository for being fetched again when what should be there is not.
func (r *repo) readError(db *odb.DB, err error) error {
	if err == nil {
		return nil
	}
	if failure.KindOf(err) != "" {
		return err
	}
	if r.db.Load() == db && (errors.Is(err, odb.ErrCorrupt) || errors.Is(err, odb.ErrNotFound)) {
		r.damaged.Store(true)
	}
	return &failure.Error{
		Op: "read objects of", Object: r.display, Kind: failure.Unavailable, Err: err,
		Remedy: "it is fetched again at the next reconciliation",
	}
}

// commit is what matters of a commit object.
type commit struct {
	hash, tree odb.Hash
	when       int64 // committed, in Unix seconds
}

// commitOf reads a commit, also through annotated tags.
func commitOf(db *odb.DB, h odb.Hash) (commit, error) {
	for range 10 { // tags may point at tags
		typ, data, err := db.Read(h)
		if err != nil {
			return commit{}, err
		}
		switch typ {
		case odb.Commit:
			tree, err := headerHash(data, "tree ")
			return commit{hash: h, tree: tree, when: committed(data)}, err
		case odb.Tag:
			if h, err = headerHash(data, "object "); err != nil {
				return commit{}, err
			}
		default:
			return commit{}, &failure.Error{
				Op: "read", Object: h.String(), Kind: failure.Invalid,
				Err: fmt.Errorf("it is a %s and not a commit", typ), Remedy: "refer to a commit, or to a tag or branch that leads to one",
			}
		}
	}
	return commit{}, fmt.Errorf("%w: a tag without an end", odb.ErrCorrupt)
}

func headerHash(data []byte, prefix string) (odb.Hash, error) {
	if s := header(data, prefix); s != "" {
		return odb.ParseHash(s)
	}
	return odb.Hash{}, fmt.Errorf("%w: no line with %q", odb.ErrCorrupt, prefix)
}

// header returns the rest of the first header line that begins with prefix.
func header(data []byte, prefix string) string {
	for line := range bytes.Lines(data) {
		if s, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte(prefix)); ok {
			return string(s)
		}
		if len(line) <= 1 {
			break
		}
	}
	return ""
}

// committed reads the seconds of "committer name <mail> seconds zone".
func committed(data []byte) int64 {
	for line := range bytes.Lines(data) {
		if f := bytes.Fields(line); len(f) >= 3 && string(f[0]) == "committer" {
			var when int64
			_, _ = fmt.Sscan(string(f[len(f)-2]), &when)
			return when
		}
		if len(line) <= 1 {
			break
		}
	}
	return 0
}
