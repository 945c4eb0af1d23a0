package snapshot

import (
	"container/list"
	"sync"
)

// The bounds of a Cache, in folders. A folder that is loaded takes about 40
// bytes for each entry; what is known about one that is not takes about 200.
const (
	maxDirs  = 4096
	maxFacts = 1 << 16
)

// Cache keeps what trees of one backend have learned, so that a new revision
// costs only the folders that changed. It is safe for use by many goroutines.
type Cache struct {
	mu    sync.Mutex // guards all
	dirs  map[dirKey]*list.Element
	order *list.List // of *cachedDir, the latest first

	summaries map[dirKey]summary
	ignores   map[string]bool
}

// dirKey: equal keys, equal visible listing. The path is part of it because
// rules depend on it.
type dirKey struct{ rules, path, id string }

type cachedDir struct {
	key dirKey
	dir *dir
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{
		dirs: map[dirKey]*list.Element{}, order: list.New(),
		summaries: map[dirKey]summary{}, ignores: map[string]bool{},
	}
}

func (c *Cache) dir(key dirKey) *dir {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.dirs[key]
	if !ok {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*cachedDir).dir
}

func (c *Cache) putDir(key dirKey, d *dir) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.dirs[key]; ok {
		return
	}
	c.dirs[key] = c.order.PushFront(&cachedDir{key, d})
	if c.order.Len() > maxDirs {
		last := c.order.Back()
		delete(c.dirs, last.Value.(*cachedDir).key)
		c.order.Remove(last)
	}
}

func (c *Cache) summary(key dirKey) (summary, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.summaries[key]
	return s, ok
}

func (c *Cache) putSummary(key dirKey, s summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.summaries) >= maxFacts {
		clear(c.summaries)
	}
	c.summaries[key] = s
}

func (c *Cache) ignoreFile(id string) (has, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	has, known = c.ignores[id]
	return has, known
}

func (c *Cache) putIgnoreFile(id string, has bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ignores) >= maxFacts {
		clear(c.ignores)
	}
	c.ignores[id] = has
}
