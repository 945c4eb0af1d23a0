package link

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// The bounds of a report, as its definition has them.
const (
	mostUnits   = 500
	mostSources = 100
	mostPending = 20
	mostMessage = 512
	mostHeld    = 1024
)

// build makes a report of what the caches say now; nil as long as it is not known what the member is.
func (l *Link) build(ctx context.Context) (*v1alpha1.ClusterReportStatus, error) {
	l.mu.Lock()
	facts, refused, uncopied, wanted := l.facts, l.refused, l.uncopied, l.wanted
	l.mu.Unlock()
	if facts.ID == "" {
		return nil, nil
	}
	own := &v1alpha1.ClusterAssignment{}
	err := l.Copies.Get(ctx, l.key(), own)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read ClusterAssignment %s: %w", l.key(), err)
	}
	if wanted != nil && !own.WasCopied() {
		own.Spec = wanted.Spec // what counts is what was assigned, and not what somebody wrote into the copy
	}
	sources, err := l.sources(ctx)
	if err != nil {
		return nil, err
	}
	units, err := l.units(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := l.nodes(ctx)
	if err != nil {
		return nil, err
	}
	facts.Nodes = nodes
	s := &v1alpha1.ClusterReportStatus{Assignment: own.Status.Digest, Cluster: facts, Left: own.HasLeft() && own.Spec.Incarnation == l.Incarnation}
	states := l.assigned(own, units, sources)
	s.Assigned = states[:min(len(states), mostUnits)]
	itself, err := l.itself(ctx)
	if err != nil {
		return nil, err
	}
	counted := units
	if itself {
		counted = nil // what the hub runs for itself waits for its clusters, and this is one of them
	}
	s.Units = count(counted, states, sources)
	s.Units.Drifted = int32(min(l.Drifted(), int(s.Units.Total))) //nolint:gosec // at most the other
	s.Sources = revisions(own, sources)
	s.Problem = cut(cmp.Or(refused, uncopied, problem(own, units)), mostMessage)
	s.Pending = bounded(l.Pending())
	if l.Fleet && !itself {
		if s.Fleet, err = l.fleet(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// problem says what keeps the member from carrying out its copy. That a unit of it fails is told on the unit.
func problem(own *v1alpha1.ClusterAssignment, units map[unitKey]unit) string {
	if c := apimeta.FindStatusCondition(own.Status.Conditions, meta.ReadyCondition); c != nil && c.Status == metav1.ConditionFalse && c.Reason != meta.ProgressingReason {
		return c.Message
	}
	var all []string
	for key, u := range units {
		if state, reason, message := u.state(nil); u.wrapper && state == v1alpha1.UnitFailed && reason != meta.HealthCheckFailedReason {
			all = append(all, key.String()+": "+message)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// count counts all units but those that only deliver others. What is assigned and not there yet counts as well.
func count(units map[unitKey]unit, assigned []v1alpha1.UnitReport, sources map[sourceKey]sourceView) v1alpha1.UnitCounts {
	states := map[unitKey]v1alpha1.UnitState{}
	for key, u := range units {
		if !u.wrapper {
			states[key], _, _ = u.state(sources)
		}
	}
	for i := range assigned {
		a := &assigned[i]
		states[unitKey{a.Kind, a.Namespace, a.Name}] = a.State
	}
	var c v1alpha1.UnitCounts
	for _, s := range states {
		c.Total++
		switch s {
		case v1alpha1.UnitReady:
			c.Ready++
		case v1alpha1.UnitFailed:
			c.Failed++
		case v1alpha1.UnitSuspended:
			c.Suspended++
		default:
			c.Progressing++
		}
	}
	c.Summary = fmt.Sprintf("%d/%d", c.Ready, c.Total)
	return c
}

// revisions are those of the assigned sources, and of others as far as there is room.
func revisions(own *v1alpha1.ClusterAssignment, sources map[sourceKey]sourceView) []v1alpha1.SourceRevision {
	first := map[sourceKey]bool{}
	for i := range own.Spec.Sources {
		s := &own.Spec.Sources[i]
		first[sourceKey{s.Kind, s.Namespace, s.Name}] = true
	}
	var all []v1alpha1.SourceRevision
	for key, s := range sources {
		if s.revision != "" {
			all = append(all, v1alpha1.SourceRevision{Kind: key.kind, Namespace: key.namespace, Name: key.name, Revision: s.revision})
		}
	}
	rank := func(r v1alpha1.SourceRevision) int {
		if first[sourceKey{r.Kind, r.Namespace, r.Name}] {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b v1alpha1.SourceRevision) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all[:min(len(all), mostSources)]
}

func bounded(all []v1alpha1.PendingDeletion) []v1alpha1.PendingDeletion {
	all = slices.Clone(all[:min(len(all), mostPending)])
	for i := range all {
		all[i].Message = cut(all[i].Message, mostHeld)
	}
	return all
}

// cut shortens a message to so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}

func (l *Link) nodes(ctx context.Context) (int32, error) {
	var all metav1.PartialObjectMetadataList
	all.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := l.Cache.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list Nodes: %w", err)
	}
	return int32(len(all.Items)), nil //nolint:gosec // a cluster has fewer
}

// itself reports whether the member is its own hub: a management plane was moved into it.
func (l *Link) itself(ctx context.Context) (bool, error) {
	if !l.Fleet {
		return false, nil
	}
	own := &v1alpha1.FleetCluster{}
	err := l.Cache.Get(ctx, l.Cluster, own, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read FleetCluster %s: %w", l.Cluster, err)
	}
	return err == nil && own.Status.Incarnation == l.Incarnation, nil
}

// fleet rolls up the clusters that this one manages, and those below them; nil where there is none.
func (l *Link) fleet(ctx context.Context) (*v1alpha1.FleetCounts, error) {
	var all v1alpha1.FleetClusterList
	if err := l.Cache.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list FleetClusters: %w", err)
	}
	if len(all.Items) == 0 {
		return nil, nil
	}
	return rollUp(all.Items), nil
}

func rollUp(clusters []v1alpha1.FleetCluster) *v1alpha1.FleetCounts {
	total := &v1alpha1.FleetCounts{Levels: 1}
	for i := range clusters {
		c := &clusters[i].Status
		total.Clusters++
		if apimeta.IsStatusConditionTrue(c.Conditions, meta.ReadyCondition) {
			total.Ready++
		}
		if apimeta.IsStatusConditionFalse(c.Conditions, v1alpha1.ReachableCondition) {
			total.Unreachable++
		}
		if c.Units != nil {
			add(&total.Units, c.Units)
		}
		if below := c.Fleet; below != nil {
			total.Clusters += below.Clusters
			total.Ready += below.Ready
			total.Unreachable += below.Unreachable
			total.Levels = max(total.Levels, 1+below.Levels)
			add(&total.Units, &below.Units)
		}
	}
	total.Units.Summary = fmt.Sprintf("%d/%d", total.Units.Ready, total.Units.Total)
	total.Members = members(clusters)
	return total
}

func add(to, more *v1alpha1.UnitCounts) {
	to.Total += more.Total
	to.Ready += more.Ready
	to.Progressing += more.Progressing
	to.Failed += more.Failed
	to.Suspended += more.Suspended
	to.Drifted += more.Drifted
}

func (l *Link) sources(ctx context.Context) (map[sourceKey]sourceView, error) {
	all := map[sourceKey]sourceView{}
	for _, kind := range l.Sources {
		list := sourceList(kind)
		if list == nil {
			continue
		}
		if err := l.Cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list the sources of kind %s: %w", kind, err)
		}
		if err := apimeta.EachListItem(list, noteSource(all, kind)); err != nil {
			return nil, fmt.Errorf("list the sources of kind %s: %w", kind, err)
		}
	}
	return all, nil
}

func (l *Link) units(ctx context.Context) (map[unitKey]unit, error) {
	all := map[unitKey]unit{}
	var kustomizations kustomizev1.KustomizationList
	if err := l.Cache.List(ctx, &kustomizations, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list Kustomizations: %w", err)
	}
	for i := range kustomizations.Items {
		noteKustomization(all, &kustomizations.Items[i])
	}
	if !l.Releases {
		return all, nil
	}
	var releases helmv2.HelmReleaseList
	if err := l.Cache.List(ctx, &releases, client.UnsafeDisableDeepCopy); err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("list HelmReleases: %w", err)
	}
	for i := range releases.Items {
		noteRelease(all, &releases.Items[i])
	}
	return all, nil
}
