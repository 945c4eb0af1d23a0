package pipeline

import (
	"context"

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

// Audit compares every object of the unit that the plan would leave alone with a
// dry run. It changes nothing.
func (p *Pipeline) Audit(ctx context.Context, u Unit, t Target, a source.Artifact) (AuditResult, error) {
	var out AuditResult
	// A memory of its own: the unit may be running, and an audit needs the objects.
	objects, err := p.rebuild(ctx, u, t, a, &memory{})
	if err != nil {
		return out, at(Build, err)
	}
	for id, desired := range objects {
		known, there := t.Ledger.Known(id)
		if !there || known.State != plan.InSync || known.Digest != desired.GetAnnotations()[object.AppliedDigestAnnotation] {
			continue
		}
		settled, err := t.Applier.Settled(ctx, desired)
		if err != nil {
			return out, at(Plan, err)
		}
		// What changed while we asked is no disagreement.
		if after, still := t.Ledger.Known(id); !still || after != known {
			continue
		}
		out.Objects++
		if !settled {
			out.Disagree = append(out.Disagree, id)
		}
	}
	return out, nil
}
