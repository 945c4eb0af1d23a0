package controller

import (
	"context"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// wakeReaders enqueues the Kustomizations that have their own words for when this one
// is ready: these may look at any of its fields.
func (r *kustomizations) wakeReaders(ctx context.Context, name types.NamespacedName) {
	var list kustomizev1.KustomizationList
	if err := r.client.List(ctx, &list, client.MatchingFields{indexDependency: name.String()}, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache is stopping
	}
	for i := range list.Items {
		if reads(&list.Items[i], name) {
			r.self.add(client.ObjectKeyFromObject(&list.Items[i]), soon)
		}
	}
}

// reads reports whether k looks at the fields of the dependency.
func reads(k *kustomizev1.Kustomization, dependency types.NamespacedName) bool {
	for i, name := range dependenciesOf(k) {
		if name == dependency && k.Spec.DependsOn[i].ReadyExpr != "" {
			return true
		}
	}
	return false
}

// readsAny reports whether k looks at the fields of any dependency, and so may look at
// its own as well.
func readsAny(k *kustomizev1.Kustomization) bool {
	for _, d := range k.Spec.DependsOn {
		if d.ReadyExpr != "" {
			return true
		}
	}
	return false
}

// judgeEarly tells the ledger, before it watches anything, what the Kustomization says
// about health, so that nothing has to be judged twice.
func (r *kustomizations) judgeEarly(ctx context.Context, k *kustomizev1.Kustomization) {
	if k.Spec.KubeConfig != nil || k.Spec.Suspend {
		return
	}
	if words := r.wording.of(k); words.err == nil {
		_ = r.targets.hub.ledger.Judge(ctx, client.ObjectKeyFromObject(k), words.health) // tried again when it runs
	}
}
