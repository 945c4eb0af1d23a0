package blob

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/disk"
)

// write puts what r holds into a file that gets its name only when all is as promised.
func (s *Store) write(p Promise, r io.Reader) (Blob, error) {
	sum, name, err := hasher(p.Digest)
	if err != nil {
		return Blob{}, &failure.Error{Op: "keep", Object: p.Object, Kind: failure.Invalid, Err: err}
	}
	f, err := os.CreateTemp(s.dir, disk.New)
	if err != nil {
		return Blob{}, s.unwritten(p, err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	out := &disk.Writer{File: f}
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(r, s.opts.MaxBlobSize+1))
	err = errors.Join(err, f.Close())
	digest := name + ":" + hex.EncodeToString(sum.Sum(nil))
	switch {
	case out.Err != nil:
		return Blob{}, s.unwritten(p, out.Err)
	case err != nil:
		return Blob{}, err
	case n > s.opts.MaxBlobSize:
		return Blob{}, s.tooLarge(p)
	case digest != p.Digest:
		return Blob{}, &failure.Error{Op: "fetch", Object: p.Object, Kind: failure.Unavailable,
			Err: fmt.Errorf("the server sent other bytes than it promised: %s", digest), Remedy: "check the server, and who is between it and here"}
	}
	return s.enlist(f.Name(), digest, n, p)
}

// enlist gives a file its name, and makes room for it.
func (s *Store) enlist(file, digest string, size int64, p Promise) (Blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(digest)
	if err := os.Rename(file, path); err != nil {
		return Blob{}, s.unwritten(p, err)
	}
	from := map[string]bool{p.From: true}
	if h := s.held[digest]; h != nil {
		s.bytes -= h.size
		maps.Copy(from, h.from)
	}
	s.held[digest] = &held{size, s.opts.Now(), from}
	s.writeFrom(digest, from)
	s.bytes += size
	s.makeRoom(digest)
	return Blob{Digest: digest, Size: size, path: path}, nil
}

// fromSuffix ends the name of the file that says who sent a blob.
const fromSuffix = ".from"

// readFrom says who sent a blob. Without an answer it is sent once more.
func (s *Store) readFrom(digest string) map[string]bool {
	text, err := os.ReadFile(s.path(digest) + fromSuffix)
	from := map[string]bool{}
	if err == nil {
		for line := range strings.Lines(string(text)) {
			from[strings.TrimSuffix(line, "\n")] = true
		}
	}
	return from
}

func (s *Store) writeFrom(digest string, from map[string]bool) {
	text := strings.Join(slices.Sorted(maps.Keys(from)), "\n") + "\n"
	_ = os.WriteFile(s.path(digest)+fromSuffix, []byte(text), 0o600)
}

func (s *Store) tooLarge(p Promise) error {
	return &failure.Error{Op: "fetch", Object: p.Object, Kind: failure.Invalid,
		Err: fmt.Errorf("it has more than the limit of %d bytes", s.opts.MaxBlobSize), Remedy: "have it made smaller"}
}

func (s *Store) unwritten(p Promise, err error) error {
	return &failure.Error{Op: "keep", Object: p.Object, Kind: failure.Unavailable, Err: err, Remedy: "make room in the data folder"}
}
