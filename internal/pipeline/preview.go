package pipeline

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

type result = apply.Result

// Difference is what an action of a plan would do to its object.
type Difference struct {
	plan.Action
	// Before is the object as it is, nil when it is not there; After as it would
	// be, nil when it would be deleted. The API server has answered both.
	Before, After *unstructured.Unstructured
	// Err says why the API server would refuse the action.
	Err error
}

// Preview tells what Run would do, by the same stages, and changes nothing.
// Actions that would change nothing are left out. It returns the plan, so that
// held deletions and conflicts can be shown as well.
func (p *Pipeline) Preview(ctx context.Context, u Unit, t Target, a source.Artifact) (*plan.Plan, []Difference, error) {
	d, err := p.plan(ctx, u, t, a)
	if err != nil && (d == nil || d.plan == nil) {
		return nil, nil, err
	}
	var out []Difference
	for _, action := range d.plan.Actions {
		diff := Difference{Action: action}
		switch {
		case action.Applies():
			diff.Before, diff.After, diff.Err = t.Applier.DryRun(ctx, d.objects[action.ID])
			if diff.Err == nil && diff.Before != nil && apply.Same(diff.Before, diff.After) {
				continue
			}
		case action.Verb == plan.Delete:
			diff.Before, diff.Err = t.Applier.Live(ctx, action)
		default:
			continue
		}
		out = append(out, diff)
	}
	for _, action := range d.plan.Held {
		before, liveErr := t.Applier.Live(ctx, action)
		out = append(out, Difference{Action: action, Before: before, Err: liveErr})
	}
	return d.plan, out, errors.Join(err)
}
