package odb

import (
	"container/list"
	"fmt"
	"sync"
)

// sizeVarint reads a size at the head of a delta and says how many bytes it took.
func sizeVarint(b []byte) (v int64, used int) {
	for i, c := range b {
		if i > 8 {
			break
		}
		v |= int64(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			return v, i + 1
		}
	}
	return -1, 0
}

// applyDelta makes an object from its base and a delta: pieces copied from the
// base and pieces that the delta holds (gitformat-pack(5), "Deltified representation").
func applyDelta(base, delta []byte) ([]byte, error) {
	bad := fmt.Errorf("%w: a delta that does not fit its base", ErrCorrupt)
	from, n := sizeVarint(delta)
	if n == 0 || from != int64(len(base)) {
		return nil, bad
	}
	delta = delta[n:]
	size, n := sizeVarint(delta)
	if n == 0 || size < 0 {
		return nil, bad
	}
	delta = delta[n:]
	out := make([]byte, 0, min(size, int64(len(base)+len(delta))*8))
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		if op&0x80 == 0 {
			if op == 0 || int(op) > len(delta) {
				return nil, bad
			}
			out, delta = append(out, delta[:op]...), delta[op:]
			continue
		}
		off, length, used := copyOperands(op, delta)
		if used < 0 || off+length > len(base) || int64(len(out)+length) > size {
			return nil, bad
		}
		out, delta = append(out, base[off:off+length]...), delta[used:]
	}
	if int64(len(out)) != size {
		return nil, bad
	}
	return out, nil
}

// copyOperands reads where a piece of the base begins and how long it is: the
// bits of op say which of the bytes of both numbers follow, the rest are zero.
// used is negative when they do not.
func copyOperands(op byte, args []byte) (off, length, used int) {
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		if used == len(args) {
			return 0, 0, -1
		}
		if i < 4 {
			off |= int(args[used]) << (8 * i)
		} else {
			length |= int(args[used]) << (8 * (i - 4))
		}
		used++
	}
	if length == 0 {
		length = 0x10000
	}
	return off, length, used
}

// baseCacheLimit is the size in bytes from which on a base is not worth keeping.
const baseCacheLimit = 256 << 10

type baseKey struct {
	p   *pack
	off int64
}

type baseEntry struct {
	key  baseKey
	typ  Type
	data []byte
}

// Cache keeps the delta bases that were used last, up to a number of bytes.
// Neighbouring trees share bases, so a small cache saves most of the inflating.
type Cache struct {
	mu    sync.Mutex // guards what follows
	items map[baseKey]*list.Element
	order *list.List // of *baseEntry, the latest first
	bytes int
	limit int
}

// NewCache returns a cache that holds up to limit bytes.
func NewCache(limit int) *Cache {
	return &Cache{items: map[baseKey]*list.Element{}, order: list.New(), limit: limit}
}

func (c *Cache) get(p *pack, off int64) (Type, []byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[baseKey{p, off}]
	if !ok {
		return 0, nil, false
	}
	c.order.MoveToFront(el)
	e := el.Value.(*baseEntry)
	return e.typ, e.data, true
}

func (c *Cache) put(p *pack, off int64, typ Type, data []byte) {
	if len(data) > baseCacheLimit {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := baseKey{p, off}
	if _, ok := c.items[key]; ok {
		return
	}
	c.items[key] = c.order.PushFront(&baseEntry{key, typ, data})
	for c.bytes += len(data); c.bytes > c.limit; {
		last := c.order.Back()
		e := last.Value.(*baseEntry)
		c.bytes -= len(e.data)
		delete(c.items, e.key)
		c.order.Remove(last)
	}
}

// Clear lets go of everything.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.items, c.bytes = map[baseKey]*list.Element{}, 0
	c.order.Init()
}
