package odb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// idleAfter is for how long the index of a pack stays in memory after it was used.
const idleAfter = 10 * time.Second

// pack is one pack with its index. Both files stay open, so that they can be read
// when the names are gone; the index is in memory only while somebody reads.
type pack struct {
	base     string // path without an ending
	idx, dat *os.File
	size     int64

	used atomic.Bool // since the idle timer last looked

	mu    sync.Mutex           // guards index
	index *idxfile.MemoryIndex // nil when idle
}

func openPack(base string) (*pack, error) {
	idx, err := os.Open(base + ".idx")
	if err != nil {
		return nil, err
	}
	dat, err := os.Open(base + ".pack")
	if err != nil {
		_ = idx.Close()
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	p := &pack{base: base, idx: idx, dat: dat}
	if err := p.check(); err != nil {
		_ = idx.Close()
		_ = dat.Close()
		return nil, err
	}
	return p, nil
}

// check compares the pack's end with what the index says about it, which
// finds a pack that was cut short without reading all of it.
func (p *pack) check() error {
	info, err := p.dat.Stat()
	if err != nil {
		return err
	}
	p.size = info.Size()
	index, err := p.load()
	if err != nil {
		return err
	}
	id, err := p.reader(index, nil).ID()
	if err != nil || id != plumbing.Hash(index.PackfileChecksum) {
		return fmt.Errorf("%w: %s.pack does not belong to its index", ErrCorrupt, p.base)
	}
	return nil
}

// load returns the index, read and checked anew when it has been let go of.
func (p *pack) load() (*idxfile.MemoryIndex, error) {
	p.used.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.index != nil {
		return p.index, nil
	}
	src := indexFile{bufio.NewReader(io.NewSectionReader(p.idx, 0, math.MaxInt64)), p.idx}
	index := idxfile.NewMemoryIndex()
	if err := idxfile.NewDecoder(src).Decode(index); err != nil {
		return nil, fmt.Errorf("%w: %s.idx: %w", ErrCorrupt, p.base, err)
	}
	p.index = index
	time.AfterFunc(idleAfter, p.release)
	return index, nil
}

// release lets go of the index unless it is in use.
func (p *pack) release() {
	if p.used.Swap(false) {
		time.AfterFunc(idleAfter, p.release)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index = nil
}

// indexFile tells the decoder the size of the file, against which it checks
// what the index says about itself before it asks for memory.
type indexFile struct {
	io.Reader
	file *os.File
}

func (f indexFile) Stat() (os.FileInfo, error) { return f.file.Stat() }

// offset returns where in the pack an object begins, and the index that says so.
func (p *pack) offset(h Hash) (int64, *idxfile.MemoryIndex, error) {
	index, err := p.load()
	if err != nil {
		return 0, nil, err
	}
	off, err := index.FindOffset(h)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		err = ErrNotFound
	}
	return off, index, err
}

// reader returns a reader of its own for one read: a Packfile has a position.
func (p *pack) reader(index *idxfile.MemoryIndex, cache *Cache) *packfile.Packfile {
	file := window{r: io.NewSectionReader(p.dat, 0, p.size)}
	// Without a file system to open it again, objects are read into memory at once.
	return packfile.NewPackfileWithCache(index, nil, file, cache, 0)
}

// window is a file with a position of its own; only reading is ever asked of it.
type window struct {
	billy.File
	r *io.SectionReader
}

func (w window) Read(b []byte) (int, error)                { return w.r.Read(b) }
func (w window) ReadAt(b []byte, off int64) (int, error)   { return w.r.ReadAt(b, off) }
func (w window) Seek(off int64, whence int) (int64, error) { return w.r.Seek(off, whence) }
