// Package archive is the room that shows a .tar.gz as a source.Tree. What it
// holds is kept in memory, by content, and never written under names that the archive
// gives. An archive is taken whole or not at all: one with a path that leads outside,
// with links or devices in it, or with more in it than the limits allow is an error of kind
// failure.Invalid that names the entry.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// The defaults of Limits.
const (
	DefaultMaxBytes    = 100 << 20
	DefaultMaxFileSize = 10 << 20
	DefaultMaxEntries  = 100_000
)

// Limits bound what an archive may take into memory; 0 means the default.
type Limits struct {
	// MaxBytes is the size in bytes of all files together, unpacked, and that of the
	// archive itself.
	MaxBytes int64
	// MaxFileSize is the size in bytes of one file.
	MaxFileSize int64
	// MaxEntries is the number of files and folders.
	MaxEntries int
}

func (l Limits) orDefaults() Limits {
	if l.MaxBytes == 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.MaxFileSize == 0 {
		l.MaxFileSize = DefaultMaxFileSize
	}
	if l.MaxEntries == 0 {
		l.MaxEntries = DefaultMaxEntries
	}
	return l
}

// Read reads a .tar.gz to its end. No ignore rules apply to what is in it. The artifact has no revision.
func Read(r io.Reader, limits Limits) (source.Artifact, error) {
	zipped, err := gzip.NewReader(r)
	if err != nil {
		return source.Artifact{}, refuse("", fmt.Errorf("it is not compressed with gzip: %w", err))
	}
	u := &unpacker{limits: limits.orDefaults(), content: newContent()}
	if err := u.all(tar.NewReader(zipped)); err != nil {
		return source.Artifact{}, err
	}
	// A tar ends before its padding does: the rest belongs to what the digest is of.
	if n, err := io.Copy(io.Discard, io.LimitReader(zipped, u.limits.MaxBytes)); err != nil || n == u.limits.MaxBytes {
		return source.Artifact{}, refuse("", errors.Join(errors.New("it does not end where its content does"), err))
	}
	u.content.sort()
	tree, err := snapshot.New(u.content, ".", snapshot.Options{Everything: true})
	if err != nil {
		return source.Artifact{}, err
	}
	digest, err := tree.Digest()
	return source.Artifact{Digest: digest, Tree: tree}, err
}

// unpacker is an archive as it is read.
type unpacker struct {
	limits  Limits
	content *content
	bytes   int64
	entries int
}

func (u *unpacker) all(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse("", fmt.Errorf("it cannot be read: %w", err))
		}
		if u.entries++; u.entries > u.limits.MaxEntries {
			return refuse(h.Name, fmt.Errorf("there are more than %d entries", u.limits.MaxEntries))
		}
		if err := u.entry(h, r); err != nil {
			return err
		}
	}
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // says something of the archive, and is nothing in it
	}
	name := path.Clean(h.Name)
	switch {
	case strings.HasPrefix(name, "/") || slices.Contains(strings.Split(h.Name, "/"), ".."):
		return refuse(h.Name, errors.New("the path leads outside of it"))
	case !fs.ValidPath(name) || strings.ContainsRune(name, 0) || len(name) > 4096:
		return refuse(h.Name, errors.New("it is no valid path"))
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.content.folder(name)
	case tar.TypeReg:
		data, err := u.file(h, r)
		if err != nil {
			return err
		}
		return u.content.file(name, data, h.FileInfo().Mode()&0o100 != 0)
	case tar.TypeSymlink, tar.TypeLink:
		return refuse(h.Name, errors.New("links are not taken out of archives"))
	default:
		return refuse(h.Name, errors.New("it is neither a file nor a folder"))
	}
}

func (u *unpacker) file(h *tar.Header, r io.Reader) ([]byte, error) {
	if h.Size > u.limits.MaxFileSize {
		return nil, refuse(h.Name, fmt.Errorf("the file has %d bytes, more than the limit of %d", h.Size, u.limits.MaxFileSize))
	}
	if u.bytes += h.Size; u.bytes > u.limits.MaxBytes {
		return nil, refuse(h.Name, fmt.Errorf("the files have more than %d bytes together", u.limits.MaxBytes))
	}
	data, err := io.ReadAll(io.LimitReader(r, u.limits.MaxFileSize+1))
	if err != nil {
		return nil, refuse(h.Name, fmt.Errorf("it cannot be read: %w", err))
	}
	return data, nil
}

func refuse(entry string, err error) error {
	object := "archive"
	if entry != "" {
		object = fmt.Sprintf("archive, entry %q", entry)
	}
	return &failure.Error{Op: "read", Object: object, Kind: failure.Invalid, Err: err, Remedy: "have it made anew without that"}
}

// content is a snapshot.Backend. The ID of a folder is its path, that of a file its hash.
type content struct {
	folders map[string][]snapshot.Entry
	blobs   map[string][]byte
}

func newContent() *content {
	return &content{folders: map[string][]snapshot.Entry{".": nil}, blobs: map[string][]byte{}}
}

// folder makes a folder with those that it is in.
func (c *content) folder(name string) error {
	if _, ok := c.folders[name]; ok {
		return nil
	}
	parent := path.Dir(name)
	if err := c.folder(parent); err != nil {
		return err
	}
	if slices.ContainsFunc(c.folders[parent], func(e snapshot.Entry) bool { return e.Name == path.Base(name) }) {
		return refuse(name, errors.New("it is a file and a folder"))
	}
	c.folders[name] = nil
	c.folders[parent] = append(c.folders[parent], snapshot.Entry{Name: path.Base(name), ID: name, Kind: snapshot.Dir})
	return nil
}

// file puts a file where it belongs. One that is there twice is what it was last, as tar does.
func (c *content) file(name string, data []byte, executable bool) error {
	if _, ok := c.folders[name]; ok {
		return refuse(name, errors.New("it is a file and a folder"))
	}
	parent := path.Dir(name)
	if err := c.folder(parent); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	id := "sha256:" + hex.EncodeToString(sum[:])
	c.blobs[id] = data
	entry := snapshot.Entry{Name: path.Base(name), ID: id, Exec: executable}
	for i, e := range c.folders[parent] {
		if e.Name == entry.Name {
			c.folders[parent][i] = entry
			return nil
		}
	}
	c.folders[parent] = append(c.folders[parent], entry)
	return nil
}

func (c *content) sort() {
	for _, entries := range c.folders {
		slices.SortFunc(entries, func(a, b snapshot.Entry) int { return strings.Compare(a.Name, b.Name) })
	}
}

// List implements snapshot.Backend.
func (c *content) List(id string) ([]snapshot.Entry, error) { return slices.Clone(c.folders[id]), nil }

// Size implements snapshot.Backend.
func (c *content) Size(id string) (int64, error) { return int64(len(c.blobs[id])), nil }

// Read implements snapshot.Backend.
func (c *content) Read(id string) ([]byte, error) { return slices.Clone(c.blobs[id]), nil }

// Hash implements snapshot.Backend.
func (c *content) Hash(id string) (string, error) { return id, nil }
