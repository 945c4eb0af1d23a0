package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/source"
)

// ReleaseOptions say what to preview of a HelmRelease.
type ReleaseOptions struct {
	Chart *helm.Chart
	// OCIDigest is the digest in the revision of the chart's artifact; may be empty.
	OCIDigest string
	// Upgrade shows an upgrade also where the engine sees no reason for one, since a chart has
	// the version that is released already.
	Upgrade bool
	Budget  plan.Budget
}

// ReleasePreview is what the engine would do about a HelmRelease.
type ReleasePreview struct {
	// Decision is what it would do next.
	Decision release.Decision
	// Action is what makes a revision, empty where none is made; Record is that revision.
	Action helmv2.ReleaseAction
	Record *release.Record
	// Before and After are the hooks that would run before and after the objects.
	Before, After []*helmrelease.Hook
	// Plan is nil where nothing would be delivered.
	Plan        *plan.Plan
	Differences []pipeline.Difference
	// Secrets are values that no output may hold.
	Secrets []string
}

// ReleaseTarget returns a cluster as HelmReleases are delivered to it, for whoever previews
// them.
func ReleaseTarget(ctx context.Context, cluster *kube.Cluster, requests int) pipeline.Target {
	ledger := observe.NewLedger(ctx, observe.Options{Cluster: cluster, Manager: HelmFieldManager, Group: object.HelmGroup,
		Clock: clock.RealClock{}, Log: logr.Discard(), Notify: func(observe.Change) {}})
	applier := NewApplier(cluster, ledger, requests, nil)
	applier.Manager, applier.Group, applier.Former = HelmFieldManager, object.HelmGroup, []string{"helm"}
	return pipeline.Target{Cluster: cluster, Ledger: ledger, Applier: applier}
}

// PreviewRelease tells what a reconcile of a HelmRelease would do, by the same steps, and
// changes nothing. Values are read with the reader. What it cannot foresee, as a rollback, is a
// failure of kind Unsupported. Errors hold no value of a Secret, and the preview has its secrets
// also when there is one.
func PreviewRelease(ctx context.Context, reader client.Reader, h *helmv2.HelmRelease, t pipeline.Target, o ReleaseOptions) (ReleasePreview, error) {
	r := &previewRun{pipeline: pipeline.New(nil), helmReleaseRun: &helmReleaseRun{
		helmReleases: &helmReleases{
			units: &units[*helmv2.HelmRelease]{clock: clock.RealClock{}}, budget: o.Budget,
			rendered: prometheus.NewCounter(prometheus.CounterOpts{Name: "previews"}),
		},
		h: h.DeepCopy(), target: &delivery{Target: t}, memory: &releaseMemory{key: releaseKey(h), storage: &storage{}},
		now: time.Now(),
	}}
	err := r.preview(ctx, reader, o)
	r.shows.Secrets = r.secrets
	return r.shows, object.ConcealError(err, r.secrets)
}

// previewRun is one preview of one HelmRelease: a run that decides and delivers nothing.
type previewRun struct {
	*helmReleaseRun
	pipeline *pipeline.Pipeline
	shows    ReleasePreview
}

func (r *previewRun) preview(ctx context.Context, reader client.Reader, o ReleaseOptions) error {
	if err := checkReleaseNames(r.h); err != nil {
		return err
	}
	values, err := r.valuesFrom(ctx, reader)
	if err != nil {
		return err
	}
	r.wants(o.Chart, values, o.OCIDigest)
	if r.memory.store, err = release.NewStore(r.target.Cluster, r.memory.key.Namespace, nil); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	manifest, err := r.comparable(ctx)
	if err != nil {
		return err
	}
	d := release.Next(r.observation(), r.asWanted(manifest))
	r.h.Status, r.shows.Decision = *d.Status, d
	return r.follow(ctx, d, o.Upgrade)
}

// follow shows what a decision leads to.
func (r *previewRun) follow(ctx context.Context, d release.Decision, upgrade bool) error {
	switch d.Step {
	case release.Install:
		return r.next(ctx, helmv2.ReleaseActionInstall, false)
	case release.Upgrade:
		return r.next(ctx, helmv2.ReleaseActionUpgrade, d.Reason == release.Unmanaged)
	case release.Resume:
		return r.show(ctx, r.memory.record, false)
	case release.Unlock, release.Rollback, release.UninstallRemediation, release.Uninstall:
		return &failure.Error{Op: "preview", Object: "helmrelease/" + r.h.Name, Kind: failure.Unsupported,
			Err:    fmt.Errorf("the engine would do something else first: %s (%s): %s", d.Step, d.Reason, d.Message),
			Remedy: "look again when that is done"}
	default:
	}
	if upgrade {
		return r.next(ctx, helmv2.ReleaseActionUpgrade, d.Step == release.Adopt)
	}
	heals := r.h.GetDriftDetection().GetMode() == helmv2.DriftDetectionEnabled && (d.Step == release.None || d.Step == release.HealDrift)
	if !heals && d.Step != release.Adopt {
		return nil
	}
	unit, err := r.standing()
	if err != nil {
		return err
	}
	return r.deliver(ctx, unit)
}

// next shows the revision that an action would make.
func (r *previewRun) next(ctx context.Context, action helmv2.ReleaseAction, inherits bool) error {
	record, err := r.make(ctx, action)
	if err != nil {
		return err
	}
	return r.show(ctx, record, inherits)
}

// show shows what would be delivered of a revision. What the revision before has is
// inherited where somebody else made that.
func (r *previewRun) show(ctx context.Context, record *release.Record, inherits bool) error {
	r.shows.Record, r.shows.Action = record, record.Marks.Action
	if events := hookEvents[record.Marks.Action]; !r.withoutHooks(record.Marks.Action) {
		r.shows.Before, r.shows.After = release.HooksOf(record, events.before), release.HooksOf(record, events.after)
	}
	unit, _, err := r.unitOfRecord(ctx, record)
	if err != nil {
		return err
	}
	first, err := r.first(ctx, record)
	if err != nil {
		return err
	}
	if err := r.deliver(ctx, unit); err != nil {
		return err
	}
	if err := r.newlyPossible(ctx, record, first); err != nil {
		return err
	}
	r.shows.Differences = slices.Concat(first, r.shows.Differences)
	if inherits {
		return r.inherited(ctx, record)
	}
	return nil
}

func (r *previewRun) deliver(ctx context.Context, unit pipeline.Unit) error {
	var err error
	r.shows.Plan, r.shows.Differences, err = r.pipeline.Preview(ctx, unit, r.target.Target, source.Artifact{Digest: unit.Made.Digest})
	return unit.Conceal(err)
}

// first shows what is made before the objects: the namespace, and the definitions of the
// chart's own folder.
func (r *previewRun) first(ctx context.Context, record *release.Record) ([]pipeline.Difference, error) {
	var objects []*unstructured.Unstructured
	if record.Marks.Action == helmv2.ReleaseActionInstall && r.h.GetInstall().CreateNamespace {
		objects = append(objects, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": record.Namespace}}})
	}
	policy := r.policyOfDefinitions(record.Marks.Action)
	if policy != helmv2.Skip {
		own, err := r.definitionsOf(record)
		if err != nil {
			return nil, err
		}
		for _, o := range own {
			if o.GetKind() == definitionKind {
				o.SetNamespace("")
				object.SetOwner(o, object.Owner{Group: object.HelmGroup, Name: r.h.Name, Namespace: r.h.Namespace})
				objects = append(objects, o)
			}
		}
	}
	var out []pipeline.Difference
	for _, o := range objects {
		d, err := r.made(ctx, o, policy == helmv2.CreateReplace && o.GetKind() == definitionKind)
		if err != nil {
			return nil, err
		}
		if d != nil {
			out = append(out, *d)
		}
	}
	return out, nil
}

// made is what making an object changes; nil where it is there and stays.
func (r *previewRun) made(ctx context.Context, o *unstructured.Unstructured, replaces bool) (*pipeline.Difference, error) {
	a := plan.Action{Verb: plan.Create, ID: object.IDOf(o), Version: o.GroupVersionKind().Version}
	live, err := r.target.Applier.Live(ctx, a)
	switch {
	case err != nil:
		return nil, err
	case live == nil:
		return &pipeline.Difference{Action: a, After: o}, nil
	case !replaces:
		return nil, nil
	}
	a.Verb = plan.Update
	d := &pipeline.Difference{Action: a}
	d.Before, d.After, d.Err = r.target.Applier.DryRun(ctx, o, nil)
	return d, nil
}

// newlyPossible shows objects whose namespace or kind would be made first as they would be
// sent: the API server cannot answer for them yet.
func (r *previewRun) newlyPossible(ctx context.Context, record *release.Record, first []pipeline.Difference) error {
	if !slices.ContainsFunc(r.shows.Differences, func(d pipeline.Difference) bool { return d.Err != nil }) {
		return nil
	}
	objects, err := r.placed(ctx, record.Release)
	if err != nil {
		return err
	}
	for i := range r.shows.Differences {
		d := &r.shows.Differences[i]
		if d.Err == nil || !slices.ContainsFunc(first, func(f pipeline.Difference) bool { return enables(f, d.ID) }) {
			continue
		}
		if at := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return object.IDOf(o) == d.ID }); at >= 0 {
			d.Before, d.After, d.Err = nil, objects[at], nil
		}
	}
	return nil
}

// enables reports whether an object can be only once another one is made.
func enables(first pipeline.Difference, id object.ID) bool {
	if first.Before != nil {
		return false
	}
	if first.ID.Kind != definitionKind {
		return first.ID.Name == id.Namespace
	}
	group, _, _ := unstructured.NestedString(first.After.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(first.After.Object, "spec", "names", "kind")
	return group == id.Group && kind == id.Kind
}

// inherited shows what would be deleted of a revision that somebody else made.
func (r *previewRun) inherited(ctx context.Context, record *release.Record) error {
	_, left, err := r.lacks(ctx, record.Release)
	if err != nil {
		return err
	}
	for _, o := range left {
		a := plan.Action{Verb: plan.Delete, ID: object.IDOf(o), Version: o.GroupVersionKind().Version}
		if release.Kept(o) || slices.ContainsFunc(r.shows.Differences, func(d pipeline.Difference) bool { return d.ID == a.ID }) {
			continue
		}
		live, err := r.target.Applier.Live(ctx, a)
		if errors.Is(err, failure.Of(failure.NotFound)) || err == nil && live == nil {
			continue
		}
		r.shows.Differences = append(r.shows.Differences, pipeline.Difference{Action: a, Before: live, Err: err})
	}
	return nil
}

// ChartSource names the source that a HelmRelease takes its chart from.
func ChartSource(h *helmv2.HelmRelease) (kind, namespace, name string) {
	key, _ := chartOf(h)
	return key.Kind, key.Namespace, key.Name
}
