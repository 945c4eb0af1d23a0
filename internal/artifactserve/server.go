package artifactserve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/source"
)

const (
	// kept is how many archives of one source can be asked for: those who were told of
	// the last but one may be about to.
	kept = 2
	// streams is how many archives are sent at one time; more wait for their turn.
	streams = 8
	// patience is how long a reader may take for a part of an archive.
	patience = 30 * time.Second
	// remembered is how many digests are kept for content that is not published now.
	remembered = 1024
)

// Entry is what is said of an archive in the status of its source.
type Entry struct {
	// URL is where it can be had, and Path what comes after the host.
	URL, Path string
	// Digest is that of the archive, as "sha256:<hex>"; Size is its length in bytes.
	Digest string
	Size   int64
}

// Server serves the archives of the sources that were published. It is safe for use
// by many goroutines.
type Server struct {
	base  string
	log   logr.Logger
	slots chan struct{}

	mu      sync.RWMutex
	sources map[string][]archive // guarded by mu; by folder, the latest first
	sums    map[string]sum       // guarded by mu; by the digest of the tree
}

type archive struct {
	file string
	sum  sum
	tree source.Tree
	// packed is set for what is sent as it was published.
	packed *source.Packed
}

// write sends the archive.
func (a archive) write(ctx context.Context, w io.Writer) error {
	if a.packed == nil {
		return Write(ctx, w, a.tree)
	}
	r, err := a.packed.Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = io.Copy(w, r)
	return err
}

type sum struct {
	digest string
	size   int64
}

// NewServer returns a server whose URLs begin with "http://" and the address that others
// reach it at.
func NewServer(address string, log logr.Logger) *Server {
	return &Server{
		base: "http://" + address + "/", log: log, slots: make(chan struct{}, streams),
		sources: map[string][]archive{}, sums: map[string]sum{},
	}
}

// Publish makes the artifact of a source available, and says what to tell of it. Its digest
// takes reading the whole tree, once for each content. The last two artifacts of a source
// stay available.
func (s *Server) Publish(ctx context.Context, kind string, name types.NamespacedName, a source.Artifact) (Entry, error) {
	have, err := s.sum(ctx, a)
	if err != nil {
		return Entry{}, err
	}
	return s.add(kind, name, archive{file: fileOf(a), sum: have, tree: a.Tree, packed: a.Packed}), nil
}

// File is an artifact that is handed out as it lies somewhere: the index of a Helm repository, a chart.
type File struct {
	// Name is the last part of its URL.
	Name string
	// Digest is "sha256:<hex>" of its content, and Size its length in bytes.
	Digest string
	Size   int64
	// Open reads it. An error ends the answer to who asked.
	Open func() (io.ReadCloser, error)
}

// PublishFile makes a file available as Publish does an artifact.
func (s *Server) PublishFile(kind string, name types.NamespacedName, f File) Entry {
	return s.add(kind, name, archive{file: f.Name, sum: sum{f.Digest, f.Size}, packed: &source.Packed{Digest: f.Digest, Size: f.Size, Open: f.Open}})
}

// add puts an archive before those that a source has published.
func (s *Server) add(kind string, name types.NamespacedName, a archive) Entry {
	folder := folderOf(kind, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []archive{a}
	for _, old := range s.sources[folder] {
		if old.file != a.file && len(list) < kept {
			list = append(list, old)
		}
	}
	s.sources[folder] = list
	return Entry{URL: s.base + folder + "/" + a.file, Path: folder + "/" + a.file, Digest: a.sum.digest, Size: a.sum.size}
}

// Digest returns the digest of the archive of an artifact, which costs nothing when it
// was published before.
func (s *Server) Digest(ctx context.Context, a source.Artifact) (string, error) {
	have, err := s.sum(ctx, a)
	return have.digest, err
}

// Withdraw ends the availability of a source's artifacts.
func (s *Server) Withdraw(kind string, name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, folderOf(kind, name))
}

func folderOf(kind string, name types.NamespacedName) string {
	return strings.ToLower(kind) + "/" + name.Namespace + "/" + name.Name
}

// fileOf names an archive as the toolkit does: by the hash in the revision.
func fileOf(a source.Artifact) string {
	hash := a.Revision[strings.LastIndexByte(a.Revision, ':')+1:]
	if hash == "" || strings.ContainsAny(hash, "/@ ") {
		hash = a.Digest[strings.LastIndexByte(a.Digest, ':')+1:]
	}
	return hash + ".tar.gz"
}

// sum returns the digest and the size of an artifact's archive.
func (s *Server) sum(ctx context.Context, a source.Artifact) (sum, error) {
	if a.Packed != nil {
		return sum{a.Packed.Digest, a.Packed.Size}, nil
	}
	s.mu.RLock()
	have, ok := s.sums[a.Digest]
	s.mu.RUnlock()
	if ok {
		return have, nil
	}
	h := sha256.New()
	c := &counter{write: h.Write}
	if err := Write(ctx, c, &unhurried{Tree: a.Tree, ctx: ctx}); err != nil {
		return sum{}, err
	}
	have = sum{"sha256:" + hex.EncodeToString(h.Sum(nil)), c.n}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sums) >= remembered {
		clear(s.sums)
	}
	s.sums[a.Digest] = have
	return have, nil
}

// batch files are read at once, and then nothing for the time of a rest.
const (
	batch = 16
	rest  = 2 * time.Millisecond
)

// unhurried is a tree that is read slowly: the digest of a new revision is wanted just when those
// who deliver it need the processor, and nobody waits for it.
type unhurried struct {
	source.Tree
	ctx  context.Context //nolint:containedctx // it lives as long as one reading
	read int
}

// ReadFile implements source.Tree.
func (u *unhurried) ReadFile(name string) ([]byte, error) {
	if u.read++; u.read%batch == 0 {
		select {
		case <-time.After(rest):
		case <-u.ctx.Done():
			return nil, u.ctx.Err()
		}
	}
	return u.Tree.ReadFile(name)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "artifacts can only be read", http.StatusMethodNotAllowed)
		return
	}
	found, ok := s.find(strings.TrimPrefix(r.URL.Path, "/"))
	if !ok {
		http.Error(w, "there is no such artifact, or a newer one has taken its place: see status.artifact.url of the source", http.StatusNotFound)
		return
	}
	tag := strconv.Quote(found.sum.digest)
	w.Header().Set("ETag", tag)
	w.Header().Set("Content-Type", "application/gzip")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(found.sum.size, 10))
	if r.Method == http.MethodHead {
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return
	}
	s.stream(w, r, found)
}

// stream sends an archive. What is cut short says so: it has not the length that was told.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, found archive) {
	control := http.NewResponseController(w)
	c := &counter{write: func(p []byte) (int, error) {
		_ = control.SetWriteDeadline(time.Now().Add(patience)) // not every writer has one
		return w.Write(p)
	}}
	err := found.write(r.Context(), c)
	if err == nil && c.n == found.sum.size {
		return
	}
	if r.Context().Err() == nil {
		s.log.Error(errors.Join(err, fmt.Errorf("sent %d of %d bytes", c.n, found.sum.size)), "artifact not served", "path", r.URL.Path)
	}
	panic(http.ErrAbortHandler)
}

func (s *Server) find(path string) (archive, bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return archive{}, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.sources[path[:i]] {
		if a.file == path[i+1:] {
			return a, true
		}
	}
	return archive{}, false
}

// counter counts what it passes on.
type counter struct {
	write func([]byte) (int, error)
	n     int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.write(p)
	c.n += int64(n)
	return n, err
}
