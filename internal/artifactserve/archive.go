// Package artifactserve is the room that serves the artifacts of sources over HTTP, for
// the other controllers of the ecosystem. No archive is ever stored: it is a
// stream that is made of the tree anew each time somebody asks, the same bytes for the
// same files for ever, so that its digest can be told before anybody asks.
package artifactserve

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// Write writes all files of a tree as a .tar.gz, in the order of their names within
// each folder, readable for everybody and without times or owners. A symbolic link to a file is
// written as that file; other links, and files that are too large to be read, are left out.
//
// It is a plain archive in a gzip envelope that compresses nothing: archives travel within
// a cluster, and what a compressor makes of them differs from one version of it to the next.
func Write(ctx context.Context, w io.Writer, tree source.Tree) error {
	e := newEnvelope(w)
	t := tar.NewWriter(e)
	if err := writeFolder(ctx, t, e, tree, "."); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return e.close()
}

func writeFolder(ctx context.Context, t *tar.Writer, e *envelope, tree source.Tree, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := tree.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if entry.IsDir() {
			if err := writeFolder(ctx, t, e, tree, name); err != nil {
				return err
			}
			continue
		}
		if entry.Type() == fs.ModeSymlink && !leadsToFile(tree, name) {
			continue
		}
		data, err := tree.ReadFile(name)
		if failure.KindOf(err) == failure.Invalid {
			continue // too large for anybody here
		}
		if err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		if err := writeFile(t, e, name, data); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
	}
	return nil
}

func leadsToFile(tree source.Tree, name string) bool {
	info, err := tree.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

func writeFile(t *tar.Writer, e *envelope, name string, data []byte) error {
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	if err != nil {
		return err
	}
	if _, err := t.Write(data); err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return e.flush()
}

// envelope is a gzip stream of blocks that are stored as they are (RFC 1951, 3.2.4, and
// RFC 1952). It holds back what belongs to one block.
type envelope struct {
	w     io.Writer
	block []byte
	sum   uint32
	size  uint32
	err   error
}

// maxBlock is the most that a stored block can hold.
const maxBlock = 1<<16 - 1

// gzipHeader says: deflate, no name, no time, made on an unknown system.
const gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

func newEnvelope(w io.Writer) *envelope {
	e := &envelope{w: w, block: make([]byte, 0, maxBlock)}
	_, e.err = io.WriteString(w, gzipHeader)
	return e
}

// Write implements io.Writer.
func (e *envelope) Write(p []byte) (int, error) {
	n := len(p)
	e.sum = crc32.Update(e.sum, crc32.IEEETable, p)
	e.size += uint32(n) //nolint:gosec // the format has the size modulo 2^32
	for len(p) > 0 && e.err == nil {
		room := min(len(p), maxBlock-len(e.block))
		e.block = append(e.block, p[:room]...)
		p = p[room:]
		if len(e.block) == maxBlock {
			e.err = e.flush()
		}
	}
	return n, e.err
}

// flush ends a block.
func (e *envelope) flush() error {
	if len(e.block) == 0 || e.err != nil {
		return e.err
	}
	e.header(0, len(e.block))
	if e.err == nil {
		_, e.err = e.w.Write(e.block)
	}
	e.block = e.block[:0]
	return e.err
}

func (e *envelope) header(last byte, length int) {
	var h [5]byte
	h[0] = last
	binary.LittleEndian.PutUint16(h[1:], uint16(length))  //nolint:gosec // at most maxBlock
	binary.LittleEndian.PutUint16(h[3:], ^uint16(length)) //nolint:gosec // at most maxBlock
	if e.err == nil {
		_, e.err = e.w.Write(h[:])
	}
}

func (e *envelope) close() error {
	if err := e.flush(); err != nil {
		return err
	}
	e.header(1, 0)
	var end [8]byte
	binary.LittleEndian.PutUint32(end[:], e.sum)
	binary.LittleEndian.PutUint32(end[4:], e.size)
	if e.err == nil {
		_, e.err = e.w.Write(end[:])
	}
	if e.err != nil {
		return errors.Join(errors.New("write archive"), e.err)
	}
	return nil
}
