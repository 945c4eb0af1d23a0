package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// AuditResult is what an audit found.
type AuditResult struct {
	// Objects is how many were compared.
	Objects int
	// Disagree are those which the ledger holds to be in sync, and a dry run
	// does not.
	Disagree []object.ID
}

// auditConfirms is how long an audit waits before it asks again about an object
// on which ledger and dry run disagree: a watch event may be on its way.
const auditConfirms = time.Second

// Audit compares every object of the unit that the plan would leave alone with a
// dry run. It changes nothing.
func (p *Pipeline) Audit(ctx context.Context, u Unit, t Target, a source.Artifact) (AuditResult, error) {
	var out AuditResult
	d, _, err := p.make(ctx, u, t, a.Tree) // the unit may be running: what it remembers is its own
	if err != nil {
		return out, at(Build, err)
	}
	compared, doubtful, err := compare(ctx, t, d.wants, d.objects)
	out.Objects = compared
	if err != nil || len(doubtful) == 0 {
		return out, at(Plan, err)
	}
	select {
	case <-ctx.Done():
		return out, at(Plan, ctx.Err())
	case <-time.After(auditConfirms):
	}
	_, doubtful, err = compare(ctx, t, d.wants, doubtful)
	for id := range doubtful {
		out.Disagree = append(out.Disagree, id)
	}
	slices.SortFunc(out.Disagree, object.Compare)
	return out, at(Plan, err)
}

// compare returns how many of the objects the ledger holds to be in sync, and
// which of these a dry run would change.
func compare(ctx context.Context, t Target, wants []plan.Want, objects plan.Objects) (compared int, differ plan.Objects, err error) {
	differ = plan.Objects{}
	for _, w := range wants {
		id, desired := w.ID, objects[w.ID]
		known, there := t.Ledger.Known(id)
		if desired == nil || !there || known.State != plan.InSync || known.Digest != w.Digest {
			continue
		}
		settled, err := t.Applier.Settled(ctx, desired, w.Ignored)
		if err != nil {
			return compared, nil, err
		}
		// What changed while we asked is no disagreement.
		if after, still := t.Ledger.Known(id); !still || after != known {
			continue
		}
		compared++
		if !settled {
			differ[id] = desired
		}
	}
	return compared, differ, nil
}
