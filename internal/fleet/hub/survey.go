package hub

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// survey reads what all clusters of a namespace have in common, and decides which of them Placements may leave.
type survey struct {
	*hub
	compiler *template.Compiler
}

// Reconcile implements reconcile.Reconciler; a request names a namespace.
func (s *survey) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	n, err := s.read(ctx, req.Namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	room := s.rooms.of(req.Namespace)
	renewed := room.renew(n, s.compiler)
	released, told, again := room.depart(n, s.Clock.Now(), s.Settle)
	for i := range n.clusters {
		if name := n.clusters[i].Name; renewed || released.Has(name) {
			s.assignments.Add(types.NamespacedName{Namespace: req.Namespace, Name: name})
		}
	}
	if renewed {
		for i := range n.placements {
			told = append(told, n.placements[i].Name)
		}
	}
	s.wakePlacements(req.Namespace, told...)
	if err := s.spend(ctx, n, room); apierrors.IsConflict(err) {
		again = outdated // what was read was old
	} else if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// spend takes the approvals off the Placements that clusters were released by: what was approved once is no consent
// to the same a second time, when the clusters are back.
func (s *survey) spend(ctx context.Context, n namespace, room *room) error {
	for i := range n.placements {
		before := &n.placements[i]
		used := room.used(before.Name)
		if used == "" {
			continue
		}
		next := before.DeepCopy()
		if left := without(before.Annotations[v1alpha1.ApprovedPlanAnnotation], used); left != "" {
			next.Annotations[v1alpha1.ApprovedPlanAnnotation] = left
		} else {
			delete(next.Annotations, v1alpha1.ApprovedPlanAnnotation)
		}
		err := s.client.Patch(ctx, next, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("take the approval that was used off Placement %s: %w", before.Name, err)
		}
	}
	return nil
}

// namespace is what was read of one.
type namespace struct {
	placements []v1alpha1.Placement
	clusters   []v1alpha1.FleetCluster
	sources    map[placement.SourceKey]seen
	assigned   map[string]*v1alpha1.ClusterAssignmentSpec
}

func (s *survey) read(ctx context.Context, name string) (namespace, error) {
	n := namespace{assigned: map[string]*v1alpha1.ClusterAssignmentSpec{}}
	var placements v1alpha1.PlacementList
	if err := s.client.List(ctx, &placements, uncopied(name)...); err != nil {
		return n, fmt.Errorf("read the Placements of %s: %w", name, err)
	}
	// Placements that are being deleted count as deleted.
	n.placements = slices.DeleteFunc(placements.Items, func(p v1alpha1.Placement) bool { return !p.DeletionTimestamp.IsZero() })
	slices.SortFunc(n.placements, func(a, b v1alpha1.Placement) int { return cmp.Compare(a.Name, b.Name) })
	var clusters v1alpha1.FleetClusterList
	if err := s.client.List(ctx, &clusters, uncopied(name)...); err != nil {
		return n, fmt.Errorf("read the FleetClusters of %s: %w", name, err)
	}
	n.clusters = slices.DeleteFunc(clusters.Items, func(c v1alpha1.FleetCluster) bool { return !c.DeletionTimestamp.IsZero() })
	var assignments v1alpha1.ClusterAssignmentList
	if err := s.client.List(ctx, &assignments, uncopied(name)...); err != nil {
		return n, fmt.Errorf("read the ClusterAssignments of %s: %w", name, err)
	}
	for i := range assignments.Items {
		n.assigned[assignments.Items[i].Name] = &assignments.Items[i].Spec
	}
	room := s.rooms.of(name)
	room.mu.Lock()
	before := room.sources
	room.mu.Unlock()
	var err error
	n.sources, err = s.sources(ctx, name, before)
	return n, err
}

// signature is the same as long as nothing that assignments are made from changed.
func (n namespace) signature() string {
	var lines []string
	for i := range n.placements {
		p := &n.placements[i]
		lines = append(lines, fmt.Sprint(p.Name, " ", p.UID, " ", p.Generation))
	}
	for key, s := range n.sources {
		lines = append(lines, fmt.Sprint(key, " ", s.uid, " ", s.generation, " ", s.Revision, " ", s.Why))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// renew makes a new fleet where something changed, and reports whether it did.
func (r *room) renew(n namespace, compiler *template.Compiler) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = n.sources
	signature := n.signature()
	if r.fleet != nil && signature == r.signature {
		return false
	}
	r.signature = signature
	r.version++
	placements := make([]*v1alpha1.Placement, len(n.placements))
	there := sets.New[string]()
	for i := range n.placements {
		p := &n.placements[i]
		placements[i] = p
		there.Insert(p.Name)
		if before := r.intents[p.Name]; before.uid != string(p.UID) || before.generation != p.Generation {
			r.intents[p.Name] = intent{generation: p.Generation, uid: string(p.UID), version: r.version}
		}
	}
	for name := range r.intents {
		if !there.Has(name) {
			delete(r.intents, name)
			delete(r.departures, name)
		}
	}
	sources := make(map[placement.SourceKey]placement.Source, len(n.sources))
	for key, s := range n.sources {
		sources[key] = s.Source
	}
	r.fleet = placement.New(placements, sources, compiler)
	return true
}

// depart decides which clusters Placements may leave, and returns those that may from now on, the Placements
// about which there is something new to tell, and after what time to ask again.
func (r *room) depart(n namespace, now time.Time, settle time.Duration) (released sets.Set[string], told []string, again time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	released = sets.New[string]()
	clusters := make([]*v1alpha1.FleetCluster, len(n.clusters))
	byName := make(map[string]*v1alpha1.FleetCluster, len(n.clusters))
	for i := range n.clusters {
		clusters[i] = &n.clusters[i]
		byName[clusters[i].Name] = clusters[i]
	}
	for i := range n.placements {
		p := &n.placements[i]
		d := r.departures[p.Name]
		if d == nil {
			d = &departures{released: sets.New[string]()}
			r.departures[p.Name] = d
		}
		for name := range d.released {
			if c := byName[name]; c == nil || r.fleet.Selects(p.Name, c) || !has(n.assigned[name], p.Name) {
				d.released.Delete(name)
			}
		}
		before := d.approval
		e, careful := r.fleet.Emptying(p.Name, clusters, func(cluster string) *v1alpha1.ClusterAssignmentSpec {
			if d.released.Has(cluster) {
				return nil
			}
			return n.assigned[cluster]
		})
		freed, wait := d.judge(e, careful, p.Annotations[v1alpha1.ApprovedPlanAnnotation], now, settle)
		r.release(released, freed)
		selected := r.selected(p.Name, clusters)
		if (before == nil) != (d.approval == nil) || before != nil && before.Digest != d.approval.Digest || selected != d.selected {
			told = append(told, p.Name)
		}
		d.selected = selected
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	return released, told, again
}

// selected counts the clusters that a Placement is for. The caller holds mu.
func (r *room) selected(name string, clusters []*v1alpha1.FleetCluster) (n int) {
	for _, c := range clusters {
		if r.fleet.Selects(name, c) {
			n++
		}
	}
	return n
}

// release has clusters worked on though nothing else changed. The caller holds mu.
func (r *room) release(all sets.Set[string], names []string) {
	for _, name := range names {
		all.Insert(name)
		if s := r.clusters[name]; s != nil {
			s.input = ""
		}
	}
}

// has reports whether an assignment has something of a Placement.
func has(spec *v1alpha1.ClusterAssignmentSpec, name string) bool {
	return spec != nil && slices.ContainsFunc(spec.Placements, func(g v1alpha1.AssignedPlacement) bool { return g.Name == name })
}
