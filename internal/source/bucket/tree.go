package bucket

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// maxDepth is how many folders may be in one another.
const maxDepth = 128

// badKey says why a key cannot be the path of a file, and "" where it can.
func badKey(key string) string {
	switch {
	case strings.HasPrefix(key, "/"):
		return "its key begins with a slash"
	case slices.Contains(strings.Split(key, "/"), ".."), slices.Contains(strings.Split(key, "/"), "."):
		return "its key leads through . or .."
	case strings.Contains(key, "//"):
		return "its key has an empty part between two slashes"
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return "its key has characters that cannot be in a path"
	case !fs.ValidPath(key) || len(key) > 4096:
		return "its key is no valid path"
	case strings.Count(key, "/") > maxDepth:
		return fmt.Sprintf("it is in more than %d folders", maxDepth)
	default:
		return ""
	}
}

// short is enough of a key to know it by.
func short(key string) string {
	if len(key) > 200 {
		return strings.ToValidUTF8(key[:200], "") + "..."
	}
	return key
}

// content is a snapshot.Backend of objects that have been downloaded. The ID of a folder is its path,
// that of a file the bytes of its hash; one that is too large has its tag, after a colon.
type content struct {
	blobs   *blobs
	folders map[string][]snapshot.Entry
	sizes   map[string]int64
	// damaged says that an object is not any more as it was downloaded.
	damaged atomic.Bool
}

// show makes an artifact of what is downloaded.
func (s *Store) show(st state) (*shown, error) {
	c := &content{blobs: s.blobs, folders: map[string][]snapshot.Entry{".": nil}, sizes: map[string]int64{}}
	files := make(map[string]bool, len(st.Entries))
	for _, e := range st.Entries {
		files[e.Key] = true
	}
	for _, e := range st.Entries {
		if err := c.add(e, files); err != nil {
			return nil, err
		}
	}
	for _, entries := range c.folders {
		slices.SortFunc(entries, func(a, b snapshot.Entry) int { return strings.Compare(a.Name, b.Name) })
	}
	tree, err := snapshot.New(c, ".", snapshot.Options{Everything: true, MaxFileSize: s.opts.MaxFileSize})
	if err != nil {
		return nil, err
	}
	digest, err := tree.Digest()
	if err != nil {
		return nil, err
	}
	return &shown{artifact: source.Artifact{Revision: st.Revision, Digest: digest, Tree: tree}, tree: c}, nil
}

func (c *content) add(e entry, files map[string]bool) error {
	id := ":" + e.Tag
	if e.Sum != "" {
		raw, err := hex.DecodeString(e.Sum)
		if err != nil {
			return err
		}
		id = string(raw)
	}
	if err := c.folder(path.Dir(e.Key), files); err != nil {
		return err
	}
	c.sizes[id] = e.Size
	parent := path.Dir(e.Key)
	c.folders[parent] = append(c.folders[parent], snapshot.Entry{Name: path.Base(e.Key), ID: id})
	return nil
}

// folder makes a folder with those that it is in.
func (c *content) folder(name string, files map[string]bool) error {
	if _, ok := c.folders[name]; ok {
		return nil
	}
	if files[name] {
		return &failure.Error{Op: "take", Object: fmt.Sprintf("object %q", short(name)), Kind: failure.Invalid,
			Err: errors.New("others are below it as if it were a folder"), Remedy: "rename it, or leave it or them out with spec.ignore or a .sourceignore file"}
	}
	parent := path.Dir(name)
	if err := c.folder(parent, files); err != nil {
		return err
	}
	c.folders[name] = nil
	c.folders[parent] = append(c.folders[parent], snapshot.Entry{Name: path.Base(name), ID: name, Kind: snapshot.Dir})
	return nil
}

// List implements snapshot.Backend.
func (c *content) List(id string) ([]snapshot.Entry, error) { return slices.Clone(c.folders[id]), nil }

// Size implements snapshot.Backend.
func (c *content) Size(id string) (int64, error) { return c.sizes[id], nil }

// Read implements snapshot.Backend.
func (c *content) Read(id string) ([]byte, error) {
	data, err := c.blobs.read(hex.EncodeToString([]byte(id)))
	if err != nil {
		c.damaged.Store(true)
	}
	return data, err
}

// Hash implements snapshot.Backend.
func (c *content) Hash(id string) (string, error) {
	if strings.HasPrefix(id, ":") && len(id) != 32 {
		return "tag" + id, nil
	}
	return "sha256:" + hex.EncodeToString([]byte(id)), nil
}
