package odb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sort"
)

// pack is one pack with its index (version 2, gitformat-pack(5)). Both files
// stay open and are read at positions; only the fan-out table is in memory.
type pack struct {
	base     string // path without an ending
	idx, dat *os.File
	size     int64
	count    int
	fanout   [256]uint32
}

const (
	idxHeader  = 8
	idxNames   = idxHeader + 256*4
	idxTrailer = 40
)

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
	if err := p.readHeader(); err != nil {
		_ = idx.Close()
		_ = dat.Close()
		return nil, err
	}
	return p, nil
}

func (p *pack) readHeader() error {
	var head [idxNames]byte
	if _, err := p.idx.ReadAt(head[:], 0); err != nil || !bytes.Equal(head[:idxHeader], []byte("\377tOc\x00\x00\x00\x02")) {
		return fmt.Errorf("%w: %s.idx is no pack index", ErrCorrupt, p.base)
	}
	for i := range p.fanout {
		p.fanout[i] = binary.BigEndian.Uint32(head[idxHeader+4*i:])
		if i > 0 && p.fanout[i] < p.fanout[i-1] {
			return fmt.Errorf("%w: %s.idx is not in order", ErrCorrupt, p.base)
		}
	}
	p.count = int(p.fanout[255])
	info, err := p.idx.Stat()
	if err != nil {
		return err
	}
	if info.Size() < int64(idxNames+p.count*28+idxTrailer) {
		return fmt.Errorf("%w: %s.idx is cut short", ErrCorrupt, p.base)
	}
	return p.checkPack()
}

// checkPack compares the pack's end with what the index says about it, which
// finds a pack that was cut short without reading all of it.
func (p *pack) checkPack() error {
	info, err := p.dat.Stat()
	if err != nil {
		return err
	}
	p.size = info.Size()
	idxInfo, err := p.idx.Stat()
	if err != nil {
		return err
	}
	var want, got [20]byte
	if _, err := p.idx.ReadAt(want[:], idxInfo.Size()-idxTrailer); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, err := p.dat.ReadAt(got[:], max(p.size-20, 0)); err != nil || want != got {
		return fmt.Errorf("%w: %s.pack does not belong to its index", ErrCorrupt, p.base)
	}
	return nil
}

// offset returns where in the pack an object begins.
func (p *pack) offset(h Hash) (int64, error) {
	lo, hi := 0, int(p.fanout[h[0]])
	if h[0] > 0 {
		lo = int(p.fanout[h[0]-1])
	}
	i, err := p.search(h, lo, hi)
	if err != nil {
		return 0, err
	}
	var word [8]byte
	offsets := int64(idxNames + p.count*24)
	if _, err := p.idx.ReadAt(word[:4], offsets+int64(i)*4); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	off := binary.BigEndian.Uint32(word[:4])
	if off&(1<<31) == 0 {
		return int64(off), nil
	}
	// Offsets past 2 GiB are in a table of their own.
	at := offsets + int64(p.count)*4 + int64(off&^(1<<31))*8
	if _, err := p.idx.ReadAt(word[:], at); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return int64(binary.BigEndian.Uint64(word[:]) & (1<<63 - 1)), nil
}

// search finds h among the names lo to hi: by halves on disk while there are
// many, then in one read.
func (p *pack) search(h Hash, lo, hi int) (int, error) {
	const few = 256
	var name Hash
	for hi-lo > few {
		mid := (lo + hi) / 2
		if _, err := p.idx.ReadAt(name[:], idxNames+int64(mid)*20); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if bytes.Compare(name[:], h[:]) <= 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	n := hi - lo
	if n <= 0 {
		return 0, ErrNotFound
	}
	var table [few * 20]byte
	if _, err := p.idx.ReadAt(table[:n*20], idxNames+int64(lo)*20); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	i := sort.Search(n, func(i int) bool { return bytes.Compare(table[i*20:i*20+20], h[:]) >= 0 })
	if i == n || !bytes.Equal(table[i*20:i*20+20], h[:]) {
		return 0, ErrNotFound
	}
	return lo + i, nil
}
