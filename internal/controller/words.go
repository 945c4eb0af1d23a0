package controller

import (
	"context"
	"fmt"
	"sync"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// words are the expressions of a unit, compiled.
type words struct {
	uid        types.UID
	generation int64
	// health is nil where the unit has no words of its own for it, or does
	// not look at health at all.
	health *health.Rules
	// ready holds the readyExpr of every dependency, nil where it has none.
	ready []*expr.Expression
	// err says which expression is wrong.
	err error
}

// wording holds the words of all units of a kind, so that they are compiled once for
// each change of a spec.
type wording struct {
	mu     sync.Mutex
	byUnit map[types.NamespacedName]*words // guarded by mu; the words themselves do not change
}

func newWording() *wording { return &wording{byUnit: map[types.NamespacedName]*words{}} }

// spoken is what a unit says in expressions.
type spoken struct {
	health []kustomize.CustomHealthCheck
	// listens says whether health is looked at.
	listens bool
	deps    []meta.DependencyReference
	// suspended says that nothing of it counts now.
	suspended bool
}

func spokenBy(o client.Object) spoken {
	switch o := o.(type) {
	case *kustomizev1.Kustomization:
		// As in the toolkit, expressions say something only about what is waited for.
		return spoken{o.Spec.HealthCheckExprs, o.Spec.Wait || len(o.Spec.HealthChecks) > 0, o.Spec.DependsOn, o.Spec.Suspend}
	case *helmv2.HelmRelease:
		return spoken{o.Spec.HealthCheckExprs, true, o.Spec.DependsOn, o.Spec.Suspend}
	default:
		return spoken{}
	}
}

// of returns the words of a unit.
func (w *wording) of(o client.Object) *words {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := client.ObjectKeyFromObject(o)
	known := w.byUnit[name]
	if known == nil || known.uid != o.GetUID() || known.generation != o.GetGeneration() {
		known = wordsOf(o)
		w.byUnit[name] = known
	}
	return known
}

func (w *wording) forget(unit types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byUnit, unit)
}

func wordsOf(o client.Object) *words {
	said := spokenBy(o)
	out := &words{uid: o.GetUID(), generation: o.GetGeneration(), ready: make([]*expr.Expression, len(said.deps))}
	var rules *health.Rules
	if rules, out.err = health.NewRules(said.health); out.err != nil {
		return out
	}
	if said.listens {
		out.health = rules
	}
	for i, d := range said.deps {
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

// readyBy evaluates what a unit itself says about a dependency being ready.
func readyBy(ctx context.Context, e *expr.Expression, self, dep client.Object) (bool, error) {
	mine, err := runtime.DefaultUnstructuredConverter.ToUnstructured(self)
	if err != nil {
		return false, fmt.Errorf("convert self: %w", err)
	}
	other, err := runtime.DefaultUnstructuredConverter.ToUnstructured(dep)
	if err != nil {
		return false, fmt.Errorf("convert dep: %w", err)
	}
	return e.True(ctx, map[string]any{"self": mine, "dep": other})
}
