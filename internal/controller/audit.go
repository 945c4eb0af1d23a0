package controller

import (
	"context"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// auditSample is how many units an audit looks at; over time it gets round to
// all of them.
const auditSample = 10

// audit compares, now and then, a sample of what the ledger holds to be in sync
// with what dry runs say. Disagreements are counted, logged and healed.
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
	var list kustomizev1.KustomizationList
	if err := e.mgr.GetClient().List(ctx, &list); err != nil || len(list.Items) == 0 {
		return 0
	}
	for i := range min(auditSample, len(list.Items)) {
		e.auditOne(ctx, &list.Items[(first+i)%len(list.Items)])
	}
	return (first + auditSample) % len(list.Items)
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
	audit, err := e.units.pipeline.Audit(ctx, unit, target.Target, artifact)
	if err != nil {
		e.log.Info("audit not completed", "kustomization", client.ObjectKeyFromObject(k), "cause", unit.Conceal(err).Error())
		return
	}
	e.meters.audited.Add(float64(audit.Objects))
	e.meters.disagreements.Add(float64(len(audit.Disagree)))
	for _, id := range audit.Disagree {
		e.log.Info("the ledger disagrees with a dry run; healing", "kustomization", client.ObjectKeyFromObject(k), "object", id.String())
		target.ledger.Doubt(id)
	}
	if len(audit.Disagree) > 0 {
		e.units.attempts.drift(unit.Name)
		e.units.self.add(unit.Name, urgent)
	}
}
