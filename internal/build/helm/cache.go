package helm

import (
	"maps"
	"slices"
	"sync"
	"weak"

	"github.com/bowline-dev/bowline/internal/source"
)

// keptBytes is the size of the files of charts that are kept although nobody uses them.
const keptBytes = 8 << 20

// Charts keeps charts that were read, by what their artifact holds, while somebody uses
// them, and the last few after that: a hundred releases of one chart read it once. It is
// safe for use by many goroutines. The zero value is ready for use.
type Charts struct {
	mu      sync.Mutex
	entries map[string]*cached // guarded by mu
	recent  []*Chart           // guarded by mu; the latest last
}

// cached is one chart. It is read once for all who ask at a time.
type cached struct {
	mu    sync.Mutex
	chart weak.Pointer[Chart] // guarded by mu
}

// Load is Load of the package for a chart that may be there already.
func (c *Charts) Load(artifact source.Artifact, dir string) (*Chart, error) {
	entry := c.entry(artifact.Digest + "/" + dir)
	entry.mu.Lock()
	defer entry.mu.Unlock()
	chart := entry.chart.Value()
	if chart == nil {
		var err error
		if chart, err = Load(artifact, dir); err != nil {
			return nil, err
		}
		entry.chart = weak.Make(chart)
	}
	c.use(chart)
	return chart, nil
}

func (c *Charts) entry(key string) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		return e
	}
	if c.entries == nil {
		c.entries = map[string]*cached{}
	}
	// Charts are few and come seldom: what nobody uses any more is looked for when one does.
	maps.DeleteFunc(c.entries, func(_ string, e *cached) bool {
		if !e.mu.TryLock() {
			return false // it is being read
		}
		defer e.mu.Unlock()
		return e.chart.Value() == nil
	})
	e := &cached{}
	c.entries[key] = e
	return e
}

// use makes the chart the latest, and lets go of the earliest beyond what is kept.
func (c *Charts) use(chart *Chart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.recent, chart); i >= 0 {
		c.recent = slices.Delete(c.recent, i, i+1)
	}
	c.recent = append(c.recent, chart)
	size := 0
	for i := len(c.recent) - 1; i >= 0; i-- {
		if size += c.recent[i].size; size > keptBytes && i < len(c.recent)-1 {
			c.recent = slices.Delete(c.recent, 0, i+1)
			return
		}
	}
}
