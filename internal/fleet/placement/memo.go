package placement

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// Memo is what the units of one cluster were made to be the last time. An Assign that is given it makes only those anew for which
// something else is said now, of the unit or of the cluster: a commit moves a pin and no unit. The result is the same bytes as without it. The zero
// value is ready. It is for one cluster, and not for several goroutines at once.
type Memo struct {
	// variables are what the units were made with.
	variables template.Variables
	// units are those that Placements made, by what they were made from.
	units map[string]made
}

// made is what became of a pattern.
type made struct {
	unit
	// placed is false where the cluster has no such unit.
	placed bool
}

// copied returns what was made for somebody to have: answers of the API server are read into it.
func (m made) copied() (unit, bool) {
	u := m.unit
	u.Spec.Raw = slices.Clone(u.Spec.Raw)
	return u, m.placed
}

// recalled returns what is remembered for a cluster as it is now.
func (m *Memo) recalled(now template.Variables) map[string]made {
	if m == nil || !reflect.DeepEqual(m.variables, now) {
		return nil
	}
	return m.units
}

// note replaces what is remembered.
func (m *Memo) note(now template.Variables, units map[string]made) {
	if m != nil {
		m.variables, m.units = now, units
	}
}

// identify notes what names all that a unit is made from but the cluster, and whether a cluster makes a difference. The
// name is empty where it cannot be told.
func (t *pattern) identify(p *v1alpha1.Placement) {
	type override struct {
		Names    []string
		Selector any
		Patch    apiextensionsv1.JSON
	}
	from := struct {
		Kind, Name, When, Fleet, Namespace string
		Spec                               apiextensionsv1.JSON
		Overrides                          []override
	}{t.kind, t.name, t.when, p.Namespace, p.Spec.Namespace, apiextensionsv1.JSON{Raw: t.raw}, nil}
	for _, o := range p.Spec.Overrides {
		if o.Unit == t.name {
			from.Overrides = append(from.Overrides, override{o.ClusterNames, o.Clusters, o.Patch})
		}
	}
	t.same = t.when == "" && len(from.Overrides) == 0 && !bytes.ContainsRune(t.raw, '$')
	if raw, err := json.Marshal(from); err == nil {
		t.id = hash(raw)
	}
}

// on returns the unit of a cluster; ok is false where it has none.
func (t *pattern) on(ctx context.Context, a *assignment, p *placed) (u unit, ok bool, err error) {
	known, there := a.before[t.id]
	if t.same {
		known, there = a.fleet.common.unit(t.id)
	}
	if !there || t.id == "" {
		if known.unit, known.placed, err = t.expanded(ctx, a, p); err != nil {
			return unit{}, false, err
		}
		if t.same {
			a.fleet.common.note(t.id, known)
		}
	}
	if !t.same {
		a.made[t.id] = known
	}
	u, ok = known.copied()
	return u, ok, nil
}

// pinned is a source as members get it.
type pinned struct {
	revision string
	raw      []byte
	refersTo []SourceKey
}

func pinnedOf(key SourceKey, s Source, v variant) (pinned, error) {
	spec, revision, err := pin(s, v)
	if err != nil {
		return pinned{}, &failure.Error{Op: "use", Object: key.String(), Kind: kindOr(err, failure.Unavailable), Err: err}
	}
	raw, err := canonical(spec)
	if err != nil {
		return pinned{}, fmt.Errorf("write %s: %w", key, err)
	}
	return pinned{revision, raw, refersTo(spec)}, nil
}

// common holds what is the same for all clusters of a fleet once it was made for one: sources as they are, and units
// that ask nothing of a cluster.
type common struct {
	mu    sync.Mutex
	pins  map[SourceKey]pinned // guarded by mu
	units map[string]made      // guarded by mu
}

// pinned returns a source for the members.
func (c *common) pinned(key SourceKey, s Source, v variant) (pinned, error) {
	if v != none {
		return pinnedOf(key, s, v)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.pins[key]
	if ok {
		return known, nil
	}
	known, err := pinnedOf(key, s, v)
	if err == nil {
		c.pins[key] = known
	}
	return known, err
}

func (c *common) unit(id string) (made, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.units[id]
	return m, ok
}

func (c *common) note(id string, m made) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.units[id] = m
}
