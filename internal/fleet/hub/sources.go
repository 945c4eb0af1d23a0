package hub

import (
	"context"
	"fmt"
	"slices"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// sourceKind is how a kind of sources is read.
type sourceKind struct {
	object client.Object
	list   client.ObjectList
}

// sourceKinds are those that can be passed on to members.
func sourceKinds() map[string]sourceKind {
	return map[string]sourceKind{
		sourcev1.GitRepositoryKind:  {&sourcev1.GitRepository{}, &sourcev1.GitRepositoryList{}},
		sourcev1.OCIRepositoryKind:  {&sourcev1.OCIRepository{}, &sourcev1.OCIRepositoryList{}},
		sourcev1.BucketKind:         {&sourcev1.Bucket{}, &sourcev1.BucketList{}},
		sourcev1.HelmRepositoryKind: {&sourcev1.HelmRepository{}, &sourcev1.HelmRepositoryList{}},
		sourcev1.HelmChartKind:      {&sourcev1.HelmChart{}, &sourcev1.HelmChartList{}},
	}
}

// seen is a source as it was read.
type seen struct {
	placement.Source
	generation int64
	uid        string
}

// fetched is what a source says of itself.
type fetched struct {
	spec       any
	observed   int64
	artifact   *meta.Artifact
	conditions []metav1.Condition
	// pinned says that members get the revision.
	pinned bool
}

func fetchedOf(o client.Object) fetched {
	switch o := o.(type) {
	case *sourcev1.GitRepository:
		return fetched{&o.Spec, o.Status.ObservedGeneration, o.Status.Artifact, o.Status.Conditions, true}
	case *sourcev1.OCIRepository:
		return fetched{&o.Spec, o.Status.ObservedGeneration, o.Status.Artifact, o.Status.Conditions, true}
	case *sourcev1.Bucket:
		return fetched{spec: &o.Spec}
	case *sourcev1.HelmRepository:
		return fetched{spec: &o.Spec}
	case *sourcev1.HelmChart:
		return fetched{spec: &o.Spec}
	default:
		return fetched{}
	}
}

// see reads a source. A revision counts for the spec that it was fetched by: while there is none of the newest
// spec, what was known before goes on, and that is nothing after a restart.
func see(o client.Object, before seen) seen {
	f := fetchedOf(o)
	now := seen{Source: placement.Source{Spec: f.spec}, generation: o.GetGeneration(), uid: string(o.GetUID())}
	if !f.pinned {
		return now
	}
	ready := apimeta.FindStatusCondition(f.conditions, meta.ReadyCondition)
	known := before.Revision != "" && before.uid == now.uid
	switch {
	case f.artifact != nil && (ready != nil && ready.Status == metav1.ConditionTrue && f.observed == now.generation || known && before.generation == now.generation):
		now.Revision = f.artifact.Revision
	case known:
		return before
	case ready != nil && ready.Status != metav1.ConditionTrue:
		now.Why = ready.Message
	}
	return now
}

// repinned: members may get another spec or revision of a source.
func repinned() predicate.Predicate {
	revision := func(f fetched) string {
		if f.artifact == nil {
			return ""
		}
		return f.artifact.Revision
	}
	return onUpdate(func(before, after client.Object) bool {
		x, y := fetchedOf(before), fetchedOf(after)
		if before.GetGeneration() != after.GetGeneration() || revision(x) != revision(y) {
			return true
		}
		one, other := apimeta.FindStatusCondition(x.conditions, meta.ReadyCondition), apimeta.FindStatusCondition(y.conditions, meta.ReadyCondition)
		return y.pinned && (one == nil || other == nil || one.Status != other.Status || other.Status == metav1.ConditionFalse && one.Message != other.Message)
	})
}

// sources reads the sources of a namespace.
func (s *survey) sources(ctx context.Context, namespace string, before map[placement.SourceKey]seen) (map[placement.SourceKey]seen, error) {
	all := map[placement.SourceKey]seen{}
	for kind, k := range sourceKinds() {
		if !slices.Contains(s.Sources, kind) {
			continue
		}
		if err := s.client.List(ctx, k.list, uncopied(namespace)...); err != nil {
			return nil, fmt.Errorf("read the %s objects of %s: %w", kind, namespace, err)
		}
		err := apimeta.EachListItem(k.list, func(item runtime.Object) error {
			o, ok := item.(client.Object)
			if !ok {
				return fmt.Errorf("%T is no object", item)
			}
			key := placement.SourceKey{Kind: kind, Name: o.GetName()}
			all[key] = see(o, before[key])
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
