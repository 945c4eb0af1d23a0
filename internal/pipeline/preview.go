package pipeline

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

type result = apply.Result

// Difference is what an action of a plan would do to its object.
type Difference struct {
	plan.Action
	// Before is the object as it is, nil when it is not there; After as it would
	// be, nil when it would be deleted. The API server has answered both, but for
	// an object whose namespace or kind the same plan creates: nobody can answer
	// for that yet, and After is what would be sent.
	Before, After *unstructured.Unstructured
	// Err says why the API server would refuse the action.
	Err error
	// Decrypted says that the object holds something that was encrypted in the source:
	// its values must not be shown, whatever its kind.
	Decrypted bool
}

// Look returns the plan that Run would carry out, by the same stages, and changes nothing.
func (p *Pipeline) Look(ctx context.Context, u Unit, t Target, a source.Artifact) (*plan.Plan, error) {
	d, err := p.plan(ctx, u, t, a)
	if err != nil {
		return nil, err
	}
	return d.plan, nil
}

// Preview tells what Run would do, by the same stages, and changes nothing.
// Actions that would change nothing are left out. It returns the plan, so that
// held deletions and conflicts can be shown as well.
func (p *Pipeline) Preview(ctx context.Context, u Unit, t Target, a source.Artifact) (*plan.Plan, []Difference, error) {
	d, err := p.plan(ctx, u, t, a)
	if err != nil {
		return nil, nil, err
	}
	var out []Difference
	for _, action := range d.plan.Actions {
		diff := Difference{Action: action}
		switch {
		case action.Applies():
			diff.Before, diff.After, diff.Err = t.Applier.DryRun(ctx, d.objects[action.ID], action.Ignored)
			if diff.Err != nil && d.creates(action.ID) {
				diff.Before, diff.After, diff.Err = nil, d.objects[action.ID], nil
			}
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
	for i := range out {
		conceal(&out[i], u.Recipe.Decryption)
	}
	return d.plan, out, at(Plan, conflicts(u, d.plan))
}

// conceal notes which differences hold secrets, and keeps these out of the errors.
func conceal(d *Difference, decrypter build.Decrypter) {
	if decrypter == nil {
		return
	}
	d.Decrypted = decrypter.Holds(d.Before) || decrypter.Holds(d.After)
	if d.Err != nil {
		d.Err = decrypter.Conceal(d.Err)
	}
}

// creates reports whether the plan creates the namespace or the kind of an object.
func (d *decision) creates(id object.ID) bool {
	for _, a := range d.plan.Actions {
		if a.Verb == plan.Create && a.ID == (object.ID{Kind: "Namespace", Name: id.Namespace}) {
			return true
		}
		if a.Verb != plan.Create || a.ID.Kind != "CustomResourceDefinition" {
			continue
		}
		if _, ok := definedScopes([]*unstructured.Unstructured{d.objects[a.ID]})[id.GroupKind()]; ok {
			return true
		}
	}
	return false
}
