package hub

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

const (
	first  = "main@sha1:1111111111111111111111111111111111111111"
	second = "main@sha1:2222222222222222222222222222222222222222"
)

var (
	prod  = map[string]string{"env": "prod"}
	quick = Options{Settle: 300 * time.Millisecond, StatusInterval: 50 * time.Millisecond, Grace: 200 * time.Millisecond}
)

// From a Placement to clusters that report it ready, a commit, and rest.
func TestPlacement(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	s.source("fleet", first)
	for _, name := range []string{"a", "b"} {
		s.cluster(name, prod)
	}
	c := s.cluster("c", map[string]string{"env": "test"})
	p := s.place("apps", prod, unit("web"), unit("db"))
	a := s.assignment("a", "two units", placements("apps"))
	if got := string(a.Spec.Placements[0].Units[0].Spec.Raw); !strings.Contains(got, `"path":"./web/a"`) || a.Spec.UnitCount != 2 {
		t.Errorf("assigned %d units: %s", a.Spec.UnitCount, got)
	}
	s.assignment("b", "two units", placements("apps"))
	s.assignment("c", "nothing", placements())
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ProgressingReason, "ready on 0 of 2 clusters; waiting for a, b")
	says(s, c, v1alpha1.UnitsReadyCondition, metav1.ConditionUnknown, v1alpha1.AwaitingReportReason)
	for _, name := range []string{"a", "b", "c"} {
		s.report(name, v1alpha1.UnitReady)
	}
	says(s, p, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, "ready on 2 clusters")
	if p.Status.Clusters != 2 || p.Status.ReadyClusters != 2 || p.Status.Failing != nil {
		t.Errorf("status is %+v", p.Status)
	}
	member := &v1alpha1.FleetCluster{ObjectMeta: s.meta("a")}
	says(s, member, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, "2 units are ready")
	if got := member.Status; got.Phase != v1alpha1.PhaseReady || got.KubernetesVersion != "v1.36.0" || got.Nodes != 3 || got.ClusterID != "id-a" ||
		got.Units == nil || got.Units.Summary != "2/2" || got.Assignment != a.Spec.Digest {
		t.Errorf("the status of the cluster is %+v", got)
	}
	s.fetched("fleet", second)
	a = s.assignment("a", "the second commit", func(spec v1alpha1.ClusterAssignmentSpec) bool {
		return len(spec.Sources) == 1 && spec.Sources[0].Revision == second && strings.Contains(string(spec.Sources[0].Spec.Raw), second[10:])
	})
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ProgressingReason)
	s.assignment("b", "the second commit", func(spec v1alpha1.ClusterAssignmentSpec) bool { return spec.Sources[0].Revision == second })
	for _, name := range []string{"a", "b"} {
		s.report(name, v1alpha1.UnitReady)
	}
	says(s, p, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	says(s, member, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	resting(s, func() { s.report("a", v1alpha1.UnitReady) })
	// Somebody's change does not stay.
	change(s, a, func(a *v1alpha1.ClusterAssignment) { a.Spec.Placements = nil })
	s.assignment("a", "two units again", placements("apps"))
	s.must(s.Delete(s.Context(), a))
	s.assignment("a", "two units once more", placements("apps"))
}

// resting checks that the hub asks nothing when a report says what the one before it said, and that after a restart it writes nothing.
func resting(s *stage, still func()) {
	s.Helper()
	settled(s)
	s.asked.reset()
	still()
	settled(s)
	marker := map[string]int{"POST " + s.namespace + "/clusterassignments": 1, "POST " + s.namespace + "/clusterreports": 1}
	if got := s.asked.reset(); !maps.Equal(got, marker) {
		s.Errorf("at rest the hub asked: %v", got)
	}
	s.stop()
	s.start(quick)
	settled(s)
	for what, n := range s.asked.reset() {
		if !strings.HasPrefix(what, "GET ") && marker[what] != n {
			s.Errorf("after a restart the hub wrote: %s, %d times", what, n)
		}
	}
}

// settled has a change go through the whole hub, so that what came before it is through as well.
func settled(s *stage) {
	s.Helper()
	name := fmt.Sprint("settled-", time.Now().UnixNano())
	p := s.place(name, map[string]string{"none": "such"}, unit("none"))
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.NoClusterReason)
	s.must(s.Delete(s.Context(), p))
	s.cluster(name, nil)
	s.assignment(name, "nothing", placements())
	says(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta(name)}, v1alpha1.UnitsReadyCondition, metav1.ConditionUnknown, v1alpha1.AwaitingReportReason)
	c := &v1alpha1.FleetCluster{ObjectMeta: s.meta(name)}
	s.must(s.Delete(s.Context(), c))
	s.gone(c)
}

func (s *stage) gone(o client.Object) {
	s.Helper()
	s.eventually(o.GetName()+" gone", func() (bool, string) {
		err := s.Get(s.Context(), client.ObjectKeyFromObject(o), o)
		return client.IgnoreNotFound(err) == nil && err != nil, fmt.Sprintf("%v %+v", err, o)
	})
}

// What would leave most of its clusters is held until exactly that is approved.
func TestEmptying(t *testing.T) {
	t.Parallel()
	patient := quick
	patient.Settle = 0 // as in life: on a busy machine three edits take longer than quick waits
	s := newStage(t, patient)
	s.source("fleet", first)
	for _, name := range []string{"a", "b", "c"} {
		s.cluster(name, prod)
	}
	p := s.place("apps", prod, unit("web"))
	for _, name := range []string{"a", "b", "c"} {
		s.assignment(name, "apps", placements("apps"))
	}
	says(s, p, v1alpha1.PlacedCondition, metav1.ConditionTrue, v1alpha1.PlacedReason)
	// Labels go one after the other.
	for _, name := range []string{"a", "b", "c"} {
		change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta(name)}, func(c *v1alpha1.FleetCluster) { c.Labels = nil })
	}
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.AwaitingReason, "leave 3 of the 3 clusters that it is on: a, b, c;", v1alpha1.ApprovedPlanAnnotation+"=sha256:")
	for _, name := range []string{"a", "b", "c"} {
		s.assignment(name, "apps, which is held", placements("apps"))
	}
	digest := func() string {
		message := p.Status.Conditions[0].Message
		return message[strings.LastIndexByte(message, '=')+1:]
	}
	other := digest()
	// Another list is another approval.
	change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta("a")}, func(c *v1alpha1.FleetCluster) { c.Labels = prod })
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.AwaitingReason, "leave 2 of the 3 clusters that it is on: b, c;")
	change(s, p, func(p *v1alpha1.Placement) {
		p.Annotations = map[string]string{v1alpha1.ApprovedPlanAnnotation: other}
	})
	settled(s)
	s.assignment("b", "apps: something else was approved", placements("apps"))
	change(s, p, func(p *v1alpha1.Placement) {
		p.Annotations = map[string]string{v1alpha1.ApprovedPlanAnnotation: other + "," + digest()}
	})
	s.assignment("b", "nothing", placements())
	s.assignment("c", "nothing", placements())
	s.assignment("a", "apps", placements("apps"))
	s.report("a", v1alpha1.UnitReady)
	says(s, p, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, "ready on 1 cluster")
	// What was approved is done: when the labels are back and go once more, it is asked again.
	s.eventually("the approval is used up", func() (bool, string) {
		s.must(s.Get(s.Context(), client.ObjectKeyFromObject(p), p))
		return p.Annotations[v1alpha1.ApprovedPlanAnnotation] == other, fmt.Sprint(p.Annotations)
	})
	for _, labels := range []map[string]string{prod, nil} {
		for _, name := range []string{"b", "c"} {
			change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta(name)}, func(c *v1alpha1.FleetCluster) { c.Labels = labels })
		}
		for _, name := range []string{"b", "c"} {
			s.assignment(name, "apps, again and still", placements("apps"))
		}
	}
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.AwaitingReason, "leave 2 of the 3 clusters that it is on: b, c;")
	// One may go, where others stay; the last one that the Placement is for may not.
	change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta("b")}, func(c *v1alpha1.FleetCluster) { c.Labels = prod })
	s.assignment("c", "nothing", placements())
	change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta("b")}, func(c *v1alpha1.FleetCluster) { c.Labels = nil })
	s.assignment("b", "nothing", placements())
	change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta("a")}, func(c *v1alpha1.FleetCluster) { c.Labels = nil })
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.AwaitingReason, "leave the only cluster that it is on: a;")
	s.assignment("a", "apps, which is held", placements("apps"))
	change(s, p, func(p *v1alpha1.Placement) {
		p.Annotations = map[string]string{v1alpha1.ApprovedPlanAnnotation: digest()}
	})
	s.assignment("a", "nothing", placements())
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.NoClusterReason)
}

// What is wrong is told, with where; what runs goes on.
func TestProblems(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	s.cluster("a", prod)
	p := s.place("apps", prod, unit("web"))
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.SourceNotReadyReason, "a:", "GitRepository/fleet", "there is none beside the Placement")
	s.source("fleet", "")
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.SourceNotReadyReason, "the server says no")
	s.fetched("fleet", first)
	a := s.assignment("a", "apps", placements("apps"))
	s.report("a", v1alpha1.UnitFailed)
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.UnitsFailedReason, "units fail on the only cluster: a: unit web: because")
	if len(p.Status.Failing) != 1 || p.Status.Failing[0] != (v1alpha1.PlacementFailure{Cluster: "a", Unit: "web", Message: "because"}) {
		t.Errorf("failing is %+v", p.Status.Failing)
	}
	c := &v1alpha1.FleetCluster{ObjectMeta: s.meta("a")}
	says(s, c, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.UnitsFailedReason, "1 of 1 units failed: Kustomization/bowline-system/web because")
	if c.Status.Phase != v1alpha1.PhaseFailing {
		t.Errorf("the phase is %s", c.Status.Phase)
	}
	change(s, p, func(p *v1alpha1.Placement) {
		p.Spec.Units = append(p.Spec.Units, unit("broken"))
		p.Spec.Units[1].When = "nonsense("
	})
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.InvalidUnitReason, "spec.units[1].when")
	now := s.assignment("a", "apps as it was", placements("apps"))
	if now.Spec.Digest != a.Spec.Digest {
		t.Errorf("what cannot be told changed the assignment: %+v", now.Spec)
	}
	change(s, p, func(p *v1alpha1.Placement) { p.Spec.Units = p.Spec.Units[:1] })
	says(s, p, v1alpha1.PlacedCondition, metav1.ConditionTrue, v1alpha1.PlacedReason)
	q := s.place("more", prod, unit("web"))
	says(s, q, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ConflictReason, "Placement apps")
}

// Reports of many clusters are few status writes.
func TestReportsAreCoalesced(t *testing.T) {
	t.Parallel()
	const clusters, interval = 60, 400 * time.Millisecond
	s := newStage(t, Options{Settle: quick.Settle, StatusInterval: interval, Grace: quick.Grace})
	s.source("fleet", first)
	p := s.place("apps", prod, unit("web"))
	for i := range clusters {
		s.cluster(fmt.Sprint("c-", i), prod)
	}
	for i := range clusters {
		s.assignment(fmt.Sprint("c-", i), "apps", placements("apps"))
	}
	says(s, p, v1alpha1.PlacedCondition, metav1.ConditionTrue, v1alpha1.PlacedReason)
	s.asked.reset()
	begin := time.Now()
	for i := range clusters {
		s.report(fmt.Sprint("c-", i), v1alpha1.UnitReady)
	}
	says(s, p, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, fmt.Sprintf("ready on %d clusters", clusters))
	most := int(time.Since(begin)/interval) + 1
	if got := s.asked.reset()["PATCH "+s.namespace+"/placements/apps/status"]; got < 1 || got > most {
		t.Errorf("%d status writes for %d reports in %s, at most %d were expected", got, clusters, time.Since(begin), most)
	}
}
