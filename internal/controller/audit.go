package controller

import (
	"context"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/source"
)

// auditSample is how many units an audit looks at; over time it gets round to
// all of them.
const auditSample = 10

// audit compares, now and then, a sample of what the ledger holds to be in sync
// with what dry runs say. Disagreements are counted and logged, and their units are looked at again.
func (e *engine) audit(ctx context.Context) error {
	if e.options.AuditInterval < 0 {
		return nil
	}
	ticker := time.NewTicker(e.options.AuditInterval)
	defer ticker.Stop()
	next := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			next = e.auditFrom(ctx, next)
		}
	}
}

// auditFrom audits the sample that begins at the unit with this number, and
// returns where the next begins.
func (e *engine) auditFrom(ctx context.Context, first int) int {
	all := e.audits(ctx)
	if len(all) == 0 {
		return 0
	}
	for i := range min(auditSample, len(all)) {
		all[(first+i)%len(all)](ctx)
	}
	return (first + auditSample) % len(all)
}

// audits returns what audits each unit, of both kinds.
func (e *engine) audits(ctx context.Context) []func(context.Context) {
	var all []func(context.Context)
	var units kustomizev1.KustomizationList
	if err := e.units.client.List(ctx, &units); err != nil {
		return nil // the cache is stopping
	}
	for i := range units.Items {
		all = append(all, func(ctx context.Context) { e.auditOne(ctx, &units.Items[i]) })
	}
	if e.releases == nil {
		return all
	}
	var releases helmv2.HelmReleaseList
	if err := e.releases.client.List(ctx, &releases); err != nil {
		return nil
	}
	for i := range releases.Items {
		all = append(all, func(ctx context.Context) { e.auditRelease(ctx, &releases.Items[i]) })
	}
	return all
}

func (e *engine) auditOne(ctx context.Context, k *kustomizev1.Kustomization) {
	unit, err := e.units.prepare(ctx, k)
	artifact, ok := e.units.artifacts.get(sourceOf(k))
	if err != nil || !ok || k.Spec.Suspend || !k.DeletionTimestamp.IsZero() {
		return
	}
	target, ok := e.units.targets.at(addressOf(k))
	if !ok {
		return
	}
	e.compare(ctx, audited{"kustomization", unit, target, artifact, e.units.pipeline, func(unit types.NamespacedName) {
		e.units.attempts.drift(unit)
		e.units.self.AddAt(unit, urgent)
	}})
}

// auditRelease compares what the storage says is deployed.
func (e *engine) auditRelease(ctx context.Context, h *helmv2.HelmRelease) {
	if h.Spec.Suspend || !h.DeletionTimestamp.IsZero() || h.Status.History.Latest() == nil {
		return
	}
	target, ok := e.releases.targets.at(addressOfRelease(h))
	if !ok {
		return
	}
	values, err := helm.ReadValues(ctx, e.releases.references.reader(releaseUser(client.ObjectKeyFromObject(h))), h.Namespace, h.GetValues(), h.Spec.ValuesFrom)
	if err != nil {
		return // its status says so
	}
	unit, err := e.releases.deployedUnit(ctx, h, target, values.Secrets())
	if isAbsent(err) {
		return
	}
	if err != nil {
		e.log.Info("audit not completed", "helmrelease", client.ObjectKeyFromObject(h), "cause", unit.Conceal(err).Error())
		return
	}
	e.compare(ctx, audited{"helmrelease", unit, target, source.Artifact{Digest: unit.Made.Digest}, e.releases.pipeline, func(unit types.NamespacedName) {
		e.releases.attempts.drift(unit)
		e.releases.self.AddAt(unit, urgent)
	}})
}

// deployedUnit is what the pipeline would deliver of the deployed revision of a release. It
// takes nothing from what reconciles remember, as one may be under way.
func (r *helmReleases) deployedUnit(ctx context.Context, h *helmv2.HelmRelease, target *delivery, secrets []string) (pipeline.Unit, error) {
	none := pipeline.Unit{Secrets: secrets}
	key := releaseKey(h)
	store, err := release.NewStore(target.Cluster, key.Namespace, nil)
	if err != nil {
		return none, err
	}
	record, err := store.Deployed(ctx, key.Name)
	if err != nil {
		return none, err
	}
	run := &helmReleaseRun{helmReleases: r, h: h, memory: &releaseMemory{key: key}, secrets: secrets}
	unit, err := run.unitOf(record.Version, "audited", nil, func(context.Context) (*release.Release, error) { return record.Release, nil })
	if err != nil {
		return none, err
	}
	return unit, nil
}

// audited is one unit of either kind.
type audited struct {
	kind     string
	unit     pipeline.Unit
	target   *delivery
	artifact source.Artifact
	pipeline *pipeline.Pipeline
	// again brings the unit back, which heals what the ledger was wrong about if it is to.
	again func(types.NamespacedName)
}

// compare holds the ledger against dry runs for one unit.
func (e *engine) compare(ctx context.Context, a audited) {
	audit, err := a.pipeline.Audit(ctx, a.unit, a.target.Target, a.artifact)
	if err != nil {
		e.log.Info("audit not completed", a.kind, a.unit.Name, "cause", a.unit.Conceal(err).Error())
		return
	}
	e.meters.audited.Add(float64(audit.Objects))
	e.meters.disagreements.Add(float64(len(audit.Disagree)))
	for _, id := range audit.Disagree {
		e.log.Info("the ledger disagrees with a dry run; the unit is looked at again", a.kind, a.unit.Name, "object", id.String())
		a.target.ledger.Doubt(id)
	}
	if len(audit.Disagree) > 0 {
		a.again(a.unit.Name)
	}
}
