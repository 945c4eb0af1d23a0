package hub

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// teller tells on a Placement how far its units have come.
type teller struct {
	*hub
	// written is when each status was written last.
	written *moments
}

// Reconcile implements reconcile.Reconciler; a request names a Placement.
func (t *teller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p := &v1alpha1.Placement{}
	there, err := t.peek(ctx, req.NamespacedName, p)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !there || !p.DeletionTimestamp.IsZero() {
		t.written.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if wait := t.written.left(req.NamespacedName, t.Clock.Now(), t.StatusInterval); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	v, ok := t.rooms.of(req.Namespace).view(req.Name)
	if !ok || v.intent.generation != p.Generation || v.intent.uid != string(p.UID) {
		return ctrl.Result{}, nil // the survey is on its way
	}
	members, ok, err := t.members(ctx, p, v)
	if err != nil || !ok {
		return ctrl.Result{}, err
	}
	next := p.DeepCopy()
	conclusion(next, v, sum(p.Name, members))
	return t.write(ctx, p, next)
}

// write writes a status where it differs.
func (t *teller) write(ctx context.Context, before, next *v1alpha1.Placement) (ctrl.Result, error) {
	if equality.Semantic.DeepEqual(before.Status, next.Status) {
		return ctrl.Result{}, nil
	}
	key := client.ObjectKeyFromObject(before)
	t.written.mark(key, t.Clock.Now())
	err := t.client.Status().Patch(ctx, next, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: t.StatusInterval}, nil // what was read was old
	}
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("write the status of Placement %s: %w", key, err)
	}
	return ctrl.Result{}, nil
}

// member is one cluster, as one Placement sees it.
type member struct {
	name string
	// selected: the units belong there. pending: nobody has looked yet whether they are.
	selected, pending bool
	// units is how many units there are, and digest that of the whole assignment.
	units  int
	digest string
	// problem is why the units are not as they should be.
	problem error
	report  *v1alpha1.ClusterReportStatus
}

// members returns the clusters that a Placement is for, or on; ok is false as long as some of them have not been
// looked at since the start, so that a restart changes no status.
func (t *teller) members(ctx context.Context, p *v1alpha1.Placement, v view) (all []member, ok bool, err error) {
	var clusters v1alpha1.FleetClusterList
	if err := t.client.List(ctx, &clusters, uncopied(p.Namespace)...); err != nil {
		return nil, false, fmt.Errorf("read the FleetClusters of %s: %w", p.Namespace, err)
	}
	var reports v1alpha1.ClusterReportList
	if err := t.client.List(ctx, &reports, uncopied(p.Namespace)...); err != nil {
		return nil, false, fmt.Errorf("read the ClusterReports of %s: %w", p.Namespace, err)
	}
	byName := make(map[string]*v1alpha1.ClusterReportStatus, len(reports.Items))
	for i := range reports.Items {
		byName[reports.Items[i].Name] = &reports.Items[i].Status
	}
	for i := range clusters.Items {
		c := &clusters.Items[i]
		s, known := v.clusters[c.Name]
		selects := v.fleet.Selects(p.Name, c)
		switch {
		case !c.DeletionTimestamp.IsZero(), known && !selects && s.units[p.Name] == 0:
			continue
		case !known:
			return nil, false, nil
		}
		m := member{
			name: c.Name, selected: selects, pending: s.version < v.intent.version, units: s.units[p.Name],
			digest: s.digest, problem: s.problem(p.Name), report: byName[c.Name],
		}
		if m.report == nil {
			m.report = &v1alpha1.ClusterReportStatus{}
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	return all, true, nil
}

// problem is why the units of a Placement are not on a cluster as they should be.
func (s state) problem(name string) error {
	if s.err != nil {
		return s.err
	}
	return s.problems[name]
}
