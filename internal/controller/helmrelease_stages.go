package controller

import (
	"context"
	"slices"
	"strings"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
)

// live is the cluster as the steps that only Helm knows use it.
func (r *helmReleaseRun) live() *release.Live {
	return &release.Live{Cluster: r.target.Cluster, Slots: r.target.Applier.Slots, Count: r.target.Applier.Count}
}

// hooks runs hooks whose progress is recorded in the store.
func (r *helmReleaseRun) hooks(store *release.Store) *release.Hooks {
	return &release.Hooks{
		Live: r.live(), Records: store, Follow: r.target.ledger, Clock: r.clock, Unit: r.unit(),
		Explain: func(ctx context.Context, ref observe.Reference) string {
			return object.Conceal(r.target.explain(ctx, ref.ID, ref.Version), r.secrets)
		},
		Delivered: func(id object.ID) bool { return r.target.ledger.WantedByOther(id, r.unit()) },
	}
}

// before and after are the hook events of an action.
var hookEvents = map[helmv2.ReleaseAction]struct{ before, after helmrelease.HookEvent }{
	helmv2.ReleaseActionInstall:  {helmrelease.HookPreInstall, helmrelease.HookPostInstall},
	helmv2.ReleaseActionUpgrade:  {helmrelease.HookPreUpgrade, helmrelease.HookPostUpgrade},
	helmv2.ReleaseActionRollback: {helmrelease.HookPreRollback, helmrelease.HookPostRollback},
}

func (r *helmReleaseRun) preHooks(ctx context.Context) (stepped, error) {
	return r.runHooks(ctx, hookEvents[r.memory.record.Marks.Action].before)
}

func (r *helmReleaseRun) postHooks(ctx context.Context) (stepped, error) {
	return r.runHooks(ctx, hookEvents[r.memory.record.Marks.Action].after)
}

func (r *helmReleaseRun) runHooks(ctx context.Context, event helmrelease.HookEvent) (stepped, error) {
	record := r.memory.record
	action := record.Marks.Action
	if r.withoutHooks(action) || !release.HasHooks(record.Release, event) {
		return goOn(), nil
	}
	p, err := r.hooks(r.memory.store).Advance(ctx, release.HookRun{Record: record, Event: event, Timeout: r.timeoutOf(action)})
	return r.progressed(p, err)
}

// withoutHooks reports whether an action runs no hooks.
func (r *helmReleaseRun) withoutHooks(action helmv2.ReleaseAction) bool {
	return action == helmv2.ReleaseActionInstall && r.h.GetInstall().DisableHooks ||
		action == helmv2.ReleaseActionUpgrade && r.h.GetUpgrade().DisableHooks ||
		action == helmv2.ReleaseActionRollback && r.h.GetRollback().DisableHooks
}

// progressed turns how far a step came into what is to be done.
func (r *helmReleaseRun) progressed(p release.Progress, err error) (stepped, error) {
	switch {
	case err != nil:
		return stepped{}, err
	case p.Failed != nil:
		return stepped{}, p.Failed
	case p.Done:
		return goOn(), nil
	}
	left := untilThen(p.Until, r.now)
	elapsed := r.now.Sub(r.memory.began)
	if elapsed < tellAfter {
		r.quiet = true
		return comeBack(min(left, tellAfter-elapsed)), nil
	}
	return comeBack(r.progress(p.Waits, left)), nil
}

// untilThen returns how long to wait until a time; one that is not set never comes.
func untilThen(until, now time.Time) time.Duration {
	if until.IsZero() {
		return placeComes
	}
	return max(until.Sub(now), time.Millisecond)
}

// definitions installs what the chart's own folder of definitions holds.
func (r *helmReleaseRun) definitions(ctx context.Context) (stepped, error) {
	m := r.memory
	action := m.record.Marks.Action
	if r.policyOfDefinitions(action) == helmv2.Skip || m.defined {
		return goOn(), nil
	}
	if m.definitions == nil {
		objects, err := r.definitionsOf(m.record)
		if err != nil {
			return stepped{}, err
		}
		if len(objects) == 0 {
			return goOn(), nil
		}
		m.definitions = &release.Definitions{
			Live: r.live(), Follow: r.target.ledger, Clock: r.clock, Unit: r.unit(),
			Policy: r.policyOfDefinitions(action), Objects: objects, Timeout: r.timeoutOf(action),
		}
	}
	done, err := r.progressed(m.definitions.Advance(ctx))
	m.defined = err == nil && done.more
	return done, err
}

// definitionsOf returns the objects in the crds folders of the chart that a revision is made from.
// In one that was read from the storage the chart lacks its subcharts; it is gone on with only
// while the same chart is wanted.
func (r *helmReleaseRun) definitionsOf(record *release.Record) ([]*unstructured.Unstructured, error) {
	chart := record.Chart
	if chart == nil {
		return nil, nil
	}
	if len(chart.Dependencies()) == 0 && record.Marks.Inputs == r.wanted.digest {
		var err error
		if chart, err = r.wanted.chart.Chosen(record.Config); err != nil {
			return nil, err
		}
	}
	var b strings.Builder
	for _, crd := range chart.CRDObjects() {
		b.WriteString("\n---\n")
		b.Write(crd.File.Data)
	}
	return helm.Objects(b.String())
}

// inventoryFor returns what the release has on the cluster, in two parts: what may be
// pruned when it is no longer wanted, and the definitions from charts' own folders, which
// stay for ever.
func (r *helmReleaseRun) inventoryFor(ctx context.Context, rel *release.Release) (own, definitions []plan.Entry, err error) {
	have := releaseEntries(r.h)
	doubtful := slices.ContainsFunc(have, func(e plan.Entry) bool { return e.ID.Kind == definitionKind })
	if r.h.Status.Inventory != nil && !doubtful {
		return have, nil, nil
	}
	before, err := r.deployed(ctx)
	if err != nil {
		return nil, nil, err
	}
	var installed []plan.Entry
	if before != nil {
		if installed, err = r.entriesIn(ctx, before); err != nil {
			return nil, nil, err
		}
	}
	if r.h.Status.Inventory == nil {
		return installed, nil, nil // an engine that kept none made it
	}
	wanted, err := r.entriesIn(ctx, rel)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range have {
		same := func(other plan.Entry) bool { return other.ID == e.ID }
		if e.ID.Kind != definitionKind || slices.ContainsFunc(wanted, same) || slices.ContainsFunc(installed, same) {
			own = append(own, e)
		} else {
			definitions = append(definitions, e)
		}
	}
	return own, definitions, nil
}

// entriesIn returns the objects in the manifest of a revision.
func (r *helmReleaseRun) entriesIn(ctx context.Context, rel *release.Release) ([]plan.Entry, error) {
	objects, err := r.placed(ctx, rel)
	if err != nil {
		return nil, err
	}
	entries := make([]plan.Entry, 0, len(objects))
	for _, o := range objects {
		entries = append(entries, plan.Entry{ID: object.IDOf(o), Version: o.GroupVersionKind().Version})
	}
	return entries, nil
}

// inherit makes ours what somebody else installed and the next revision lacks, so that it
// is pruned with the proof that anything else is.
func (r *helmReleaseRun) inherit(ctx context.Context, next *release.Release) error {
	before, left, err := r.lacks(ctx, next)
	if err != nil || len(left) == 0 {
		return err
	}
	unit, err := r.unitOf(before.Version, "inherited", releaseEntries(r.h), nil)
	if err != nil {
		return err
	}
	unit.Policy.Prune = false
	unit.Made.Objects = func(context.Context) ([]*unstructured.Unstructured, error) { return left, nil }
	out, err := r.send(ctx, unit, r.timeoutOf(helmv2.ReleaseActionUpgrade))
	r.keep(out, nil)
	if err != nil {
		return r.there(err)
	}
	return r.write(ctx) // what is inherited is on record before the revision is
}

// lacks returns the objects of the deployed revision that the next one lacks.
func (r *helmReleaseRun) lacks(ctx context.Context, next *release.Release) (before *release.Release, left []*unstructured.Unstructured, err error) {
	if before, err = r.deployed(ctx); err != nil || before == nil {
		return nil, nil, err
	}
	objects, err := r.placed(ctx, before)
	if err != nil {
		return nil, nil, err
	}
	wanted, err := r.entriesIn(ctx, next)
	if err != nil {
		return nil, nil, err
	}
	return before, slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool {
		return slices.ContainsFunc(wanted, func(e plan.Entry) bool { return e.ID == object.IDOf(o) })
	}), nil
}

// inheritOvertaken puts on record what a revision that is given up may have installed, so
// that the next one prunes what it lacks. While a step had nothing to tell yet, the status does not have it.
func (r *helmReleaseRun) inheritOvertaken(ctx context.Context, given *release.Release) error {
	have, definitions, err := r.inventoryFor(ctx, given)
	if err != nil {
		return err
	}
	added, err := r.entriesIn(ctx, given)
	if err != nil {
		return err
	}
	for _, e := range slices.Concat(definitions, added) {
		if !slices.ContainsFunc(have, func(other plan.Entry) bool { return other.ID == e.ID }) {
			have = append(have, e)
		}
	}
	r.h.Status.Inventory = releaseInventory(have)
	return r.write(ctx)
}

const definitionKind = "CustomResourceDefinition"

// placed returns the objects of a revision in their namespaces.
func (r *helmReleaseRun) placed(ctx context.Context, rel *release.Release) ([]*unstructured.Unstructured, error) {
	objects, err := objectsOf(rel)
	if err != nil {
		return nil, err
	}
	return objects, r.inNamespaces(ctx, objects, rel.Namespace)
}

// inNamespaces gives objects without a namespace the one of the release, and those of kinds
// that are in none none.
func (r *helmReleaseRun) inNamespaces(ctx context.Context, objects []*unstructured.Unstructured, namespace string) error {
	for _, o := range objects {
		if o.GetNamespace() == "" {
			o.SetNamespace(namespace)
		}
		kind, err := r.target.Cluster.Resources.Of(ctx, o.GroupVersionKind())
		if err == nil && !kind.Namespaced {
			o.SetNamespace("")
		} else if err != nil && failure.KindOf(err) == failure.Unavailable {
			return err
		}
	}
	return nil
}
