package controller

import (
	"context"
	"fmt"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// words are the expressions of a Kustomization, compiled.
type words struct {
	uid        types.UID
	generation int64
	// health is nil where the Kustomization has no words of its own for it, or does
	// not look at health at all.
	health *health.Rules
	// ready holds the readyExpr of every dependency, nil where it has none.
	ready []*expr.Expression
	// err says which expression is wrong.
	err error
}

// wording holds the words of all Kustomizations, so that they are compiled once for
// each change of a spec.
type wording struct {
	mu     sync.Mutex
	byUnit map[types.NamespacedName]*words // guarded by mu; the words themselves do not change
}

func newWording() *wording { return &wording{byUnit: map[types.NamespacedName]*words{}} }

// of returns the words of a Kustomization.
func (w *wording) of(k *kustomizev1.Kustomization) *words {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := client.ObjectKeyFromObject(k)
	known := w.byUnit[name]
	if known == nil || known.uid != k.UID || known.generation != k.Generation {
		known = wordsOf(k)
		w.byUnit[name] = known
	}
	return known
}

func (w *wording) forget(unit types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byUnit, unit)
}

func wordsOf(k *kustomizev1.Kustomization) *words {
	out := &words{uid: k.UID, generation: k.Generation, ready: make([]*expr.Expression, len(k.Spec.DependsOn))}
	var rules *health.Rules
	if rules, out.err = health.NewRules(k.Spec.HealthCheckExprs); out.err != nil {
		return out
	}
	// As in the toolkit, they say something only about what is waited for.
	if k.Spec.Wait || len(k.Spec.HealthChecks) > 0 {
		out.health = rules
	}
	for i, d := range k.Spec.DependsOn {
		if d.ReadyExpr == "" {
			continue
		}
		var err error
		if out.ready[i], err = expr.Over(d.ReadyExpr, "self", "dep"); err != nil {
			out.err = &failure.Error{Op: "read", Kind: failure.Invalid, Object: fmt.Sprintf("spec.dependsOn[%d].readyExpr", i),
				Err: err, Remedy: "correct the expression; it may use self and dep"}
			return out
		}
	}
	return out
}

// readyBy evaluates what the Kustomization itself says about a dependency being ready.
func (r *kustomizationRun) readyBy(ctx context.Context, e *expr.Expression, dep *kustomizev1.Kustomization) (bool, error) {
	self, err := runtime.DefaultUnstructuredConverter.ToUnstructured(r.k)
	if err != nil {
		return false, fmt.Errorf("convert self: %w", err)
	}
	other, err := runtime.DefaultUnstructuredConverter.ToUnstructured(dep)
	if err != nil {
		return false, fmt.Errorf("convert dep: %w", err)
	}
	return e.True(ctx, map[string]any{"self": self, "dep": other})
}

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
