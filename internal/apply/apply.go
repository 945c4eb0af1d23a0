// Package apply is the fourth stage of the main loop: it carries out a plan.
// It makes no choice that the plan does not hold: it only decides what goes side
// by side. All failures are reported, not the first.
package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// Journal is told of every request that changes an object, so that the events
// that it causes are recognised as ours.
type Journal interface {
	// Applying is called before the request, and followed by Applied or NotApplied.
	Applying(object.ID)
	// Applied is called with the API server's answer.
	Applied(id object.ID, digest string, answer *metav1.PartialObjectMetadata)
	// NotApplied is called when the request failed.
	NotApplied(object.ID)
	// Deleted is called after a delete request was accepted.
	Deleted(object.ID)
}

// Observer is what is known of the objects that were applied.
type Observer interface {
	// Ready reports whether the object is healthy. The error says why it will not
	// become so by itself.
	Ready(object.ID) (bool, error)
	// Watch makes sure that objects of the kind are followed.
	Watch(context.Context, schema.GroupVersionKind) error
}

// ErrPending is wrapped by the error of an action that could not be carried out
// yet, and that will be after an event which the ledger reports: a definition
// that is being established, or an object that is being deleted to be replaced.
var ErrPending = errors.New("not yet possible")

// Applier carries out plans on one cluster. It is safe for concurrent use.
type Applier struct {
	Cluster *kube.Cluster
	// Manager is the field manager.
	Manager string
	// Group is the one that units label their objects with; empty means that of
	// Kustomizations.
	Group string
	// Former are the field managers of earlier tools, whose fields become ours, besides
	// kubectl's.
	Former  []string
	Journal Journal
	Observe Observer
	// Slots bounds the requests under way at one time, over all plans.
	Slots chan struct{}
	// Chosen are the kinds that are applied in a stage of their own, before the rest.
	Chosen object.Kinds
	// Count is told of every request: "apply", "dry-run" or "delete".
	Count func(request string)
}

// Result is what became of one action.
type Result struct {
	plan.Action
	// Err is why it failed; nil when it did not.
	Err error
}

// ChangeSet is what became of a plan, sorted by identity.
type ChangeSet []Result

// Err joins all failures.
func (c ChangeSet) Err() error {
	var errs []error
	for _, r := range c {
		if r.Err != nil {
			errs = append(errs, r.Err)
		}
	}
	return errors.Join(errs...)
}

// Pending reports whether all that failed is merely not possible yet, so that an
// event will bring the rest.
func (c ChangeSet) Pending() bool {
	pending := false
	for _, r := range c {
		if r.Err != nil && !errors.Is(r.Err, ErrPending) {
			return false
		}
		pending = pending || r.Err != nil
	}
	return pending
}

// Changed returns the actions that changed the cluster.
func (c ChangeSet) Changed() []Result {
	var out []Result
	for _, r := range c {
		if r.Err == nil && (r.Applies() || r.Verb == plan.Delete) {
			out = append(out, r)
		}
	}
	return out
}

// Apply carries out the plan: applies in stages, a stage after all of the one
// before succeeded, and then deletions in reverse order. objects holds the
// desired object of every action that applies.
func (a *Applier) Apply(ctx context.Context, p *plan.Plan, objects plan.Objects) ChangeSet {
	var done ChangeSet
	var applies, deletions []plan.Action
	for _, action := range p.Actions {
		switch {
		case action.Applies():
			applies = append(applies, action)
		case action.Verb == plan.Delete:
			deletions = append(deletions, action)
		default:
			done = append(done, Result{Action: action})
		}
	}
	groups := a.stages(applies)
	for i, stage := range groups {
		if err := a.unready(p, object.Stage(stage[0].ID, a.Chosen)); err != nil {
			return sorted(append(done, postponed(slices.Concat(groups[i:]...), err)...))
		}
		results := a.sideBySide(ctx, stage, func(action plan.Action) error {
			return a.send(ctx, action, objects[action.ID])
		})
		done = append(done, results...)
		if results.Err() != nil {
			return sorted(done)
		}
		a.learn(stage, objects)
	}
	return sorted(append(done, a.Prune(ctx, deletions)...))
}

// unready says which definition of the plan that comes before the stage is not
// served yet. What the plan skips or deletes nobody waits for.
func (a *Applier) unready(p *plan.Plan, stage int) error {
	var pending error
	for _, action := range p.Actions {
		if !definesKinds(action.ID) || object.Stage(action.ID, a.Chosen) >= stage || !action.Applies() && action.Verb != plan.Keep {
			continue
		}
		ready, err := a.Observe.Ready(action.ID)
		if err != nil {
			return &failure.Error{Op: "establish", Object: action.ID.String(), Kind: failure.Conflict, Err: err}
		}
		if !ready {
			pending = fmt.Errorf("%w: waits for %s to be established", ErrPending, action.ID)
		}
	}
	return pending
}

// postponed reports the actions that were not tried. A cause that is itself a
// failure is told once, not for every object.
func postponed(actions []plan.Action, cause error) ChangeSet {
	var out ChangeSet
	for i, action := range actions {
		err := fmt.Errorf("apply %s: %w", action.ID, cause)
		if !errors.Is(cause, ErrPending) && i > 0 {
			break
		}
		out = append(out, Result{Action: action, Err: err})
	}
	return out
}

// learn tells the table of kinds of the definitions that were just applied,
// ahead of discovery.
func (a *Applier) learn(stage []plan.Action, objects plan.Objects) {
	for _, action := range stage {
		if definesKinds(action.ID) {
			a.Cluster.Resources.Learn(objects[action.ID])
		}
	}
}

// Prune deletes, in reverse order of application.
func (a *Applier) Prune(ctx context.Context, deletions []plan.Action) ChangeSet {
	var done ChangeSet
	groups := a.stages(slices.Clone(deletions))
	slices.Reverse(groups)
	for _, stage := range groups {
		slices.Reverse(stage)
		done = append(done, a.sideBySide(ctx, stage, func(action plan.Action) error {
			return a.remove(ctx, action)
		})...)
	}
	return sorted(done)
}

func definesKinds(id object.ID) bool {
	return id.Group == "apiextensions.k8s.io" && id.Kind == "CustomResourceDefinition"
}

// sideBySide runs do for all actions at once, as far as there are slots, and
// begins them in the order given. What found no slot before ctx ended failed.
func (a *Applier) sideBySide(ctx context.Context, actions []plan.Action, do func(plan.Action) error) ChangeSet {
	results := make(ChangeSet, len(actions))
	var wg sync.WaitGroup
	for i, action := range actions {
		select {
		case a.Slots <- struct{}{}:
		case <-ctx.Done():
			results[i] = Result{Action: action, Err: failed(opOf(action), action.ID, ctx.Err())}
			continue
		}
		wg.Go(func() {
			defer func() { <-a.Slots }()
			results[i] = Result{Action: action, Err: do(action)}
		})
	}
	wg.Wait()
	return results
}

func opOf(action plan.Action) string {
	if action.Verb == plan.Delete {
		return "delete"
	}
	return "apply"
}

// stages groups actions into the stages in which they are applied, each in the
// order of application.
func (a *Applier) stages(actions []plan.Action) [][]plan.Action {
	slices.SortFunc(actions, func(x, y plan.Action) int { return a.Chosen.Compare(x.ID, y.ID) })
	var out [][]plan.Action
	last := -1
	for _, action := range actions {
		if stage := object.Stage(action.ID, a.Chosen); stage != last {
			out, last = append(out, nil), stage
		}
		out[len(out)-1] = append(out[len(out)-1], action)
	}
	return out
}

func sorted(c ChangeSet) ChangeSet {
	slices.SortFunc(c, func(x, y Result) int { return object.Alphabetical(x.ID, y.ID) })
	return c
}
