// Package pipeline is the main loop, readable in one sitting:
//
//	source ──► build ──► plan ──► apply ──► observe ──► report
//
// Run takes a unit through the stages up to apply; the ledger observes, and the
// controllers report. Preview takes it through the same first stages and stops.
package pipeline

import (
	"context"
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// Builder is the build stage.
type Builder func(context.Context, source.Tree, build.Recipe) (build.Result, error)

// Unit is one thing to deliver.
type Unit struct {
	Name types.NamespacedName
	// Group is the API group of its kind, with which its objects are labelled; empty
	// means that of Kustomizations. One pipeline and one ledger serve one group.
	Group string
	// Recipe says how its source becomes objects, unless Made does.
	Recipe build.Recipe
	// Made has its objects, where they were made before: those of a Helm release.
	Made *Made
	// Replace says that objects with changed immutable fields are replaced.
	Replace bool
	// Ignore are the fields, and of releases the objects, that are left to others; may be nil.
	Ignore    *ignore.Rules
	Inventory []plan.Entry
	Policy    plan.Policy
	// Recheck asks for a dry run of the objects for which only that can tell
	// whether they drifted.
	Recheck bool
	// Secrets are values, used by the build, that no message may hold.
	Secrets []string
	// Neighbours may be nil, where no object can change hands.
	Neighbours Neighbours
}

// Made are objects that were made before.
type Made struct {
	// Digest tells apart what may be made: with another one, Objects is asked again.
	Digest string
	// Objects returns them; the values belong to the caller. It is called only when one
	// has to be sent, or nothing is known of them yet.
	Objects func(context.Context) ([]*unstructured.Unstructured, error)
}

// inputs identifies how the unit's objects are made.
func (u Unit) inputs() string {
	if u.Made != nil {
		return u.Made.Digest
	}
	return u.Recipe.Digest()
}

// make makes the unit's objects, dressed for being applied, and tells what it read: nil
// where some are of kinds that the cluster does not serve, since how those are dressed is
// not known yet.
func (p *Pipeline) make(ctx context.Context, u Unit, t Target, tree source.Tree) (dressed, build.Reads, error) {
	var err error
	result := build.Result{Reads: build.Reads{}}
	if u.Made != nil {
		result.Objects, err = u.Made.Objects(ctx)
	} else {
		result, err = p.build(ctx, tree, u.Recipe)
	}
	if err != nil {
		return dressed{}, nil, err
	}
	d, err := dress(ctx, u, t.Cluster.Resources, result.Objects)
	if d.unknown {
		result.Reads = nil
	}
	return d, result.Reads, err
}

// Conceal returns err as it may be shown: without any value that a build of the unit
// used and that is not for all, also where an API server quotes it.
func (u Unit) Conceal(err error) error {
	if u.Recipe.Decryption != nil {
		err = u.Recipe.Decryption.Conceal(err)
	}
	return object.ConcealError(err, u.Secrets)
}

// Ledger is what the pipeline needs of the observe stage.
type Ledger interface {
	plan.Ledger
	apply.Observer
	// Want tells which objects the unit wants; see plan.Ledger.Claimant.
	Want(unit types.NamespacedName, wants []plan.Want)
}

// Target is one cluster that units are delivered to.
type Target struct {
	Cluster *kube.Cluster
	Ledger  Ledger
	Applier *apply.Applier
}

// Intent is told, before anything is applied, which objects the unit may
// deliver from now on, so that they are on record when the engine dies in
// mid-apply.
type Intent func(context.Context, []plan.Entry) error

// Stage names a stage of the main loop.
type Stage string

// The stages that a unit can fail in.
const (
	Build Stage = "build"
	Plan  Stage = "plan"
	Apply Stage = "apply"
	Prune Stage = "prune"
)

// StageError says in which stage a run failed. It prints as its cause.
type StageError struct {
	Stage Stage
	Err   error
}

// Error implements error.
func (e *StageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StageError) Unwrap() error { return e.Err }

func at(stage Stage, err error) error {
	if err == nil {
		return nil
	}
	return &StageError{Stage: stage, Err: err}
}

// Outcome is what a run did.
type Outcome struct {
	// Wants are the desired objects.
	Wants []plan.Want
	// Plan is what had to be done, and Changes what became of it.
	Plan    *plan.Plan
	Changes apply.ChangeSet
	// Inventory is what the unit has on the cluster now.
	Inventory []plan.Entry
}

// Pipeline runs units. It remembers of every unit what its last build read and
// made, so that a commit costs what it changed. It is safe for concurrent use,
// but not for one unit at the same time.
type Pipeline struct {
	build Builder

	mu    sync.Mutex
	units map[types.NamespacedName]*memory // guarded by mu; each memory belongs to the run of its unit
}

// New returns a pipeline with this build stage.
func New(b Builder) *Pipeline {
	return &Pipeline{build: b, units: map[types.NamespacedName]*memory{}}
}

// Run delivers the unit as it is in the artifact. The outcome is set as far as
// the run came, also when there is an error.
func (p *Pipeline) Run(ctx context.Context, u Unit, t Target, a source.Artifact, intent Intent) (Outcome, error) {
	out := Outcome{Inventory: u.Inventory}
	d, err := p.plan(ctx, u, t, a)
	if d != nil {
		out.Wants, out.Plan = d.wants, d.plan
	}
	if err != nil {
		return out, err
	}
	if d.plan.Sends() {
		if grown := union(u.Inventory, d.plan.Actions); len(grown) > len(u.Inventory) {
			if err := intent(ctx, grown); err != nil {
				return out, err
			}
		}
	}
	out.Changes = t.Applier.Apply(ctx, d.plan, d.objects)
	out.Inventory = inventoryAfter(u.Inventory, out.Changes)
	stage := Apply
	for _, r := range out.Changes {
		if r.Err != nil && r.Verb == plan.Delete {
			stage = Prune
		}
	}
	if err := errors.Join(out.Changes.Err(), conflicts(u, d.plan)); err != nil {
		return out, at(stage, err)
	}
	return out, at(Prune, postponed(d.plan))
}

// decision is what the first three stages come to.
type decision struct {
	wants []plan.Want
	// objects are at hand only when the plan needs them.
	objects plan.Objects
	plan    *plan.Plan
	// foresight is nil unless an object may change hands.
	foresight *plan.Foresight
}

// plan runs the first three stages: source, build, plan. It builds only when
// something that the last build read has changed, or when an object has to be
// sent.
func (p *Pipeline) plan(ctx context.Context, u Unit, t Target, a source.Artifact) (*decision, error) {
	m := p.memoryOf(u.Name)
	d := &decision{}
	var err error
	if m.holds(u, a) {
		t.Ledger.Want(u.Name, m.wants)
	} else if d.objects, err = p.rebuild(ctx, u, t, a, m); err != nil {
		return nil, at(Build, err)
	}
	d.wants = m.wants
	if err := follow(ctx, t, d.wants, u.Inventory); err != nil {
		return d, at(Plan, err)
	}
	if d.plan, err = plan.Make(ctx, input(u, d), t.Ledger, t.Applier); err != nil {
		return d, at(Plan, err)
	}
	d.foresight = p.foresee(ctx, u, t, a, d.plan)
	if d.foresight != nil || d.plan.Sends() && d.objects == nil {
		return d, p.planAgain(ctx, u, t, a, d)
	}
	return d, nil
}

// planAgain makes the plan with what the first one turned out to need: the
// objects themselves, and what the neighbours want.
func (p *Pipeline) planAgain(ctx context.Context, u Unit, t Target, a source.Artifact, d *decision) error {
	var err error
	if d.objects == nil {
		m := p.memoryOf(u.Name)
		if d.objects, err = p.rebuild(ctx, u, t, a, m); err != nil {
			return at(Build, err)
		}
		d.wants = m.wants
	}
	d.plan, err = plan.Make(ctx, input(u, d), t.Ledger, t.Applier)
	return at(Plan, err)
}

func input(u Unit, d *decision) plan.Input {
	return plan.Input{
		Unit: u.Name, Wants: d.wants, Objects: d.objects,
		Inventory: u.Inventory, Policy: u.Policy, Recheck: u.Recheck, Foresight: d.foresight,
	}
}

// Forget drops what is remembered of a unit that is gone.
func (p *Pipeline) Forget(unit types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.units, unit)
}

// Affected reports whether the artifact means something else for the unit than
// its last build, as far as is known without building.
func (p *Pipeline) Affected(unit types.NamespacedName, a source.Artifact) bool {
	p.mu.Lock()
	m, ok := p.units[unit]
	p.mu.Unlock()
	return !ok || !m.covers(a)
}

func (p *Pipeline) memoryOf(unit types.NamespacedName) *memory {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.units[unit]
	if !ok {
		m = &memory{}
		p.units[unit] = m
	}
	return m
}
