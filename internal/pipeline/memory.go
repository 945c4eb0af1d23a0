package pipeline

import (
	"context"
	"sync"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// memory is what is remembered of a unit's last build: what it read, and what it
// made in short. The objects themselves are not kept; they are built again when
// one has to be sent.
type memory struct {
	mu      sync.Mutex
	recipe  string // guarded by mu
	replace bool   // guarded by mu
	ignore  string // guarded by mu
	// artifact is the digest of the newest artifact known to mean the same;
	// guarded by mu.
	artifact string
	reads    build.Reads // guarded by mu; nil: never built

	// wants belongs to the run of the unit.
	wants []plan.Want

	// ahead is what others asked about an artifact before the unit came to it.
	ahead ahead
}

// holds reports whether the last build still stands for the unit and artifact.
func (m *memory) holds(u Unit, a source.Artifact) bool {
	m.mu.Lock()
	same := m.recipe == u.inputs() && m.replace == u.Replace && m.ignore == u.Ignore.String()
	m.mu.Unlock()
	return same && m.covers(a)
}

// covers reports whether everything that the last build read is the same in a.
func (m *memory) covers(a source.Artifact) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reads == nil {
		return false
	}
	if m.artifact == a.Digest {
		return true
	}
	if !m.reads.Unchanged(a.Tree) {
		return false
	}
	m.artifact = a.Digest
	return true
}

// rebuild makes the unit's objects and returns them, and remembers in short how and what.
// What failed is not remembered.
func (p *Pipeline) rebuild(ctx context.Context, u Unit, t Target, a source.Artifact, m *memory) (plan.Objects, error) {
	d, reads, err := p.make(ctx, u, t, a.Tree)
	if err != nil {
		return nil, err
	}
	// Before anybody can see that the unit has come to this artifact: others then
	// ask the ledger what it wants.
	t.Ledger.Want(u.Name, d.wants)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recipe, m.replace, m.ignore = u.inputs(), u.Replace, u.Ignore.String()
	m.artifact, m.reads, m.wants = a.Digest, reads, d.wants
	return d.objects, nil
}
