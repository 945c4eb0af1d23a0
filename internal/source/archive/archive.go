// Package archive is the room that shows a .tar.gz as a source.Tree. What it
// holds is kept in memory, by content, and never written under names that the archive
// gives. An archive is taken whole or not at all: one with a path that leads outside,
// with links or devices in it, or with more in it than the limits allow is an error of kind
// failure.Invalid that names the entry.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"context"
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

const (
	// maxDepth is how many folders may be in one another.
	maxDepth = 128
	// perEntry is how many bytes of an archive that are no content an entry may have: its
	// headers, a long name, and padding.
	perEntry = 4096
)

// Limits bound what an archive may take into memory; 0 means the default.
type Limits struct {
	// MaxBytes is the size in bytes of all files together, unpacked, and that of the
	// archive itself.
	MaxBytes int64
	// MaxFileSize is the size in bytes of one file.
	MaxFileSize int64
	// MaxEntries is the number of files and folders, with those that only paths speak of.
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
	return ReadWith(context.Background(), r, Options{Limits: limits})
}

// Options change how an archive is read.
type Options struct {
	Limits Limits
	// SkipLinks passes over symbolic links, as the toolkit does with those in layers of registries; else
	// they are refused.
	SkipLinks bool
	// Ignored applies ignore rules to what is in the archive: those of .sourceignore files in it, and those of
	// Ignore; see snapshot.Options.
	Ignored bool
	Ignore  *string
}

// ReadWith is Read with options, that ends when ctx does.
func ReadWith(ctx context.Context, r io.Reader, o Options) (source.Artifact, error) {
	limits := o.Limits.orDefaults()
	zipped, err := gzip.NewReader(r)
	if err != nil {
		return source.Artifact{}, refuse("", fmt.Errorf("it is not compressed with gzip: %w", err))
	}
	// Headers are data as well, and of some the tar reader shows nothing.
	most := limits.MaxBytes + int64(limits.MaxEntries)*perEntry
	unpacked := &io.LimitedReader{R: zipped, N: most + 1}
	u := &unpacker{limits: limits, skipLinks: o.SkipLinks, content: newContent(limits.MaxEntries)}
	if err := u.all(ctx, tar.NewReader(unpacked)); err != nil {
		if unpacked.N <= 0 {
			err = refuse("", fmt.Errorf("it is too large: unpacked it has more than %d bytes", most))
		}
		return source.Artifact{}, err
	}
	// A tar ends before its padding does: the rest belongs to what the digest is of.
	if n, err := io.Copy(io.Discard, io.LimitReader(unpacked, limits.MaxBytes)); err != nil || n == limits.MaxBytes || unpacked.N <= 0 {
		return source.Artifact{}, refuse("", errors.Join(errors.New("it does not end where its content does"), err))
	}
	u.content.sort()
	tree, err := snapshot.New(u.content, ".", snapshot.Options{Everything: !o.Ignored, Ignore: o.Ignore})
	if err != nil {
		return source.Artifact{}, err
	}
	digest, err := tree.Digest()
	return source.Artifact{Digest: digest, Tree: tree}, err
}

// unpacker is an archive as it is read.
type unpacker struct {
	limits    Limits
	skipLinks bool
	content   *content
	bytes     int64
	entries   int
}

func (u *unpacker) all(ctx context.Context, r *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse("", fmt.Errorf("it cannot be read: %w", err))
		}
		if u.entries++; u.entries > u.limits.MaxEntries {
			return refuse(h.Name, tooMany(u.limits.MaxEntries))
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
	case strings.Count(name, "/") > maxDepth:
		return refuse(short(h.Name), fmt.Errorf("it is in more than %d folders", maxDepth))
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
		if u.skipLinks && h.Typeflag == tar.TypeSymlink {
			return nil
		}
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

func tooMany(limit int) error { return fmt.Errorf("there are more than %d entries", limit) }

// short is enough of a path to know it by.
func short(name string) string {
	if len(name) > 100 {
		return name[:100] + "..."
	}
	return name
}

// content is a snapshot.Backend. The ID of a folder is its path, that of a file its hash.
type content struct {
	folders map[string][]snapshot.Entry
	// files has, by path, where in the list of its folder a file is. It is of use until
	// the lists are sorted.
	files map[string]int
	blobs map[string][]byte
	// most is how many files and folders there may be.
	most int
}

func newContent(most int) *content {
	return &content{folders: map[string][]snapshot.Entry{".": nil}, files: map[string]int{}, blobs: map[string][]byte{}, most: most}
}

// add puts what is new into the list of its folder.
func (c *content) add(name, parent string, e snapshot.Entry) error {
	if len(c.folders)+len(c.files) > c.most { // the root is none of them
		return refuse(short(name), tooMany(c.most))
	}
	if e.Kind == snapshot.Dir {
		c.folders[name] = nil
	} else {
		c.files[name] = len(c.folders[parent])
	}
	c.folders[parent] = append(c.folders[parent], e)
	return nil
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
	if _, ok := c.files[name]; ok {
		return refuse(name, errors.New("it is a file and a folder"))
	}
	return c.add(name, parent, snapshot.Entry{Name: path.Base(name), ID: name, Kind: snapshot.Dir})
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
	if i, ok := c.files[name]; ok {
		c.folders[parent][i] = entry
		return nil
	}
	return c.add(name, parent, entry)
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
