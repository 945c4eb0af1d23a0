package odb

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// entry is the head of one object in a pack.
type entry struct {
	typ  Type
	size int64 // of the inflated data that follows: for a delta, of the delta
	data int64 // where the deflated data begins
	// base is where the base of an offset delta begins; baseHash names that of a reference delta.
	base     int64
	baseHash Hash
}

func (p *pack) entry(off int64) (entry, error) {
	var buf [48]byte // longer than any head
	n, err := p.dat.ReadAt(buf[:], off)
	if n == 0 && err != nil {
		return entry{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	b := buf[:n]
	var e entry
	i, shift := 0, 4
	if i < len(b) {
		e.typ, e.size = Type(b[0]>>4&7), int64(b[0]&15)
	}
	for b[i]&0x80 != 0 && i+1 < len(b) && shift < 60 {
		i++
		e.size |= int64(b[i]&0x7f) << shift
		shift += 7
	}
	i++
	switch e.typ {
	case Commit, Tree, Blob, Tag:
	case offsetDelta:
		back, used := offsetVarint(b[i:])
		i += used
		if e.base = off - back; used == 0 || e.base <= 0 || back <= 0 {
			return entry{}, fmt.Errorf("%w: a delta without a base", ErrCorrupt)
		}
	case refDelta:
		if len(b) < i+20 {
			return entry{}, fmt.Errorf("%w: a delta without a base", ErrCorrupt)
		}
		i += copy(e.baseHash[:], b[i:i+20])
	default:
		return entry{}, fmt.Errorf("%w: an object of unknown %s", ErrCorrupt, e.typ)
	}
	e.data = off + int64(i)
	return e, nil
}

// offsetVarint reads the distance to a base; used is 0 when there is none.
func offsetVarint(b []byte) (v int64, used int) {
	for i, c := range b {
		if i > 8 {
			return 0, 0
		}
		if i > 0 {
			v++
		}
		v = v<<7 | int64(c&0x7f)
		if c&0x80 == 0 {
			return v, i + 1
		}
	}
	return 0, 0
}

// inflater is what inflating one object needs; making it anew costs 40 KB each.
type inflater struct {
	buf *bufio.Reader
	z   io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return &inflater{buf: bufio.NewReaderSize(nil, 4096)} }}

// inflate returns the first limit bytes of an entry's data.
func (p *pack) inflate(e entry, limit int64) ([]byte, error) {
	// Deflate shrinks nothing to less than a thousandth, so a larger size is damage
	// and must not be asked of the allocator.
	if e.size > p.size*1100 {
		return nil, fmt.Errorf("%w: an object with an impossible size", ErrCorrupt)
	}
	in := inflaters.Get().(*inflater)
	defer inflaters.Put(in)
	in.buf.Reset(io.NewSectionReader(p.dat, e.data, math.MaxInt64-e.data))
	var err error
	if in.z == nil {
		in.z, err = zlib.NewReader(in.buf)
	} else {
		err = in.z.(zlib.Resetter).Reset(in.buf, nil)
	}
	if err != nil {
		in.z = nil
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	data := make([]byte, min(e.size, limit))
	if _, err := io.ReadFull(in.z, data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return data, nil
}

// maxChain is far above the 50 deltas (4095 at most) that git puts in a row.
const maxChain = 5000

// step is one delta on the way down to a whole object.
type step struct {
	p   *pack
	off int64
	e   entry
}

// readAt returns the object at an offset with all deltas applied.
func (db *DB) readAt(p *pack, off int64) (Type, []byte, error) {
	chain, typ, data, err := db.descend(p, off)
	if err != nil {
		return 0, nil, err
	}
	for i := len(chain) - 1; i >= 0; i-- {
		s := chain[i]
		delta, err := s.p.inflate(s.e, s.e.size)
		if err != nil {
			return 0, nil, err
		}
		if data, err = applyDelta(data, delta); err != nil {
			return 0, nil, err
		}
		if i > 0 {
			db.bases.put(s.p, s.off, typ, data)
		}
	}
	return typ, data, nil
}

// descend collects deltas until it comes to a whole object or to a cached one.
func (db *DB) descend(p *pack, off int64) ([]step, Type, []byte, error) {
	var chain []step
	for range maxChain {
		if len(chain) > 0 {
			if typ, data, ok := db.bases.get(p, off); ok {
				return chain, typ, data, nil
			}
		}
		e, err := p.entry(off)
		if err != nil {
			return nil, 0, nil, err
		}
		if e.typ != offsetDelta && e.typ != refDelta {
			data, err := p.inflate(e, e.size)
			if err == nil && len(chain) > 0 {
				db.bases.put(p, off, e.typ, data)
			}
			return chain, e.typ, data, err
		}
		chain = append(chain, step{p, off, e})
		if p, off, err = db.baseOf(p, e); err != nil {
			return nil, 0, nil, err
		}
	}
	return nil, 0, nil, fmt.Errorf("%w: a delta that has itself as base", ErrCorrupt)
}

func (db *DB) baseOf(p *pack, e entry) (*pack, int64, error) {
	if e.typ == offsetDelta {
		return p, e.base, nil
	}
	q, off, err := db.find(e.baseHash)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: the base of a delta is missing", ErrCorrupt)
	}
	return q, off, err
}

func (db *DB) sizeAt(p *pack, off int64) (Type, int64, error) {
	e, err := p.entry(off)
	if err != nil {
		return 0, 0, err
	}
	size := e.size
	if e.typ == offsetDelta || e.typ == refDelta {
		head, err := p.inflate(e, 20)
		if err != nil {
			return 0, 0, err
		}
		_, n := sizeVarint(head)
		size, _ = sizeVarint(head[n:])
	}
	for range maxChain {
		if e.typ != offsetDelta && e.typ != refDelta {
			return e.typ, size, nil
		}
		if p, off, err = db.baseOf(p, e); err != nil {
			return 0, 0, err
		}
		if e, err = p.entry(off); err != nil {
			return 0, 0, err
		}
	}
	return 0, 0, fmt.Errorf("%w: a delta that has itself as base", ErrCorrupt)
}
