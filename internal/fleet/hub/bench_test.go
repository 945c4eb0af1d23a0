package hub

import (
	"fmt"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// thousand is a namespace with a thousand clusters and twenty Placements of one unit each, in memory.
func thousand(revision string, placements int) namespace {
	n := namespace{assigned: map[string]*v1alpha1.ClusterAssignmentSpec{}, sources: map[placement.SourceKey]seen{
		{Kind: sourcev1.GitRepositoryKind, Name: "fleet"}: {Source: placement.Source{Spec: &sourcev1.GitRepositorySpec{URL: "https://git.example.org/fleet"}, Revision: revision}, uid: "1"},
	}}
	for i := range placements {
		n.placements = append(n.placements, v1alpha1.Placement{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%02d", i), Namespace: "fleet", UID: types.UID(fmt.Sprint(i)), Generation: 1},
			Spec:       v1alpha1.PlacementSpec{Clusters: metav1.LabelSelector{MatchLabels: prod}, Units: []v1alpha1.PlacementUnit{unit(fmt.Sprintf("unit-%02d", i))}},
		})
	}
	for i := range 1000 {
		n.clusters = append(n.clusters, v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%03d", i), Namespace: "fleet", Labels: prod}})
	}
	return n
}

// assignAll makes the assignments of all clusters, and returns how many are other than before.
func assignAll(b *testing.B, r *room, n namespace) (changed int) {
	b.Helper()
	for i := range n.clusters {
		c := &n.clusters[i]
		if r.clusters[c.Name] == nil {
			r.clusters[c.Name] = &state{memo: &placement.Memo{}}
		}
		result, err := r.fleet.Assign(b.Context(), placement.Input{Cluster: c, Current: n.assigned[c.Name], Memo: r.clusters[c.Name].memo})
		if err != nil || len(result.Problems) > 0 {
			b.Fatal(err, result.Problems)
		}
		if before := n.assigned[c.Name]; before == nil || before.Digest != result.Spec.Digest {
			changed++
		}
		n.assigned[c.Name] = &result.Spec
	}
	return changed
}

// BenchmarkFleet says what a thousand clusters with twenty units cost one core, without the API server.
func BenchmarkFleet(b *testing.B) {
	compiler := template.NewCompiler()
	for _, tc := range []struct {
		name          string
		before, after namespace
		changed       int
	}{
		{"placement", thousand(first, 19), thousand(first, 20), 1000},
		{"commit", thousand(first, 20), thousand(second, 20), 1000},
		{"nothing", thousand(first, 20), thousand(first, 20), 0},
	} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				r := newRooms().of("fleet")
				r.renew(tc.before, compiler)
				assignAll(b, r, tc.before)
				tc.after.assigned = tc.before.assigned
				b.StartTimer()
				r.renew(tc.after, compiler)
				r.depart(tc.after, time.Unix(0, 0), time.Second)
				if got := assignAll(b, r, tc.after); got != tc.changed {
					b.Fatalf("%d assignments changed, want %d", got, tc.changed)
				}
			}
		})
	}
}

// BenchmarkStatus says what the status of one Placement on a thousand clusters costs, with twenty units each.
func BenchmarkStatus(b *testing.B) {
	var members []member
	for i := range 1000 {
		r := &v1alpha1.ClusterReportStatus{Assignment: "d"}
		for j := range 20 {
			r.Assigned = append(r.Assigned, v1alpha1.UnitReport{Placement: fmt.Sprintf("p%02d", j), State: v1alpha1.UnitReady})
		}
		members = append(members, member{name: fmt.Sprintf("c%03d", i), selected: true, units: 1, digest: "d", report: r})
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := sum("p07", members); got.ready != 1000 {
			b.Fatalf("%d clusters are ready", got.ready)
		}
	}
}
