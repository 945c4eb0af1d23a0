package hub

import (
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// A FleetCluster that is deleted goes when its member has let go, and at once where there is nobody to wait for.
func TestLeaving(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	s.source("fleet", first)
	p := s.place("apps", prod, unit("web"))
	for _, tc := range []struct {
		name, reason string
		change       func(*v1alpha1.FleetCluster)
		joined       bool
		leave        v1alpha1.DeletionPolicy
		then         func(name string)
	}{
		{"never-joined", "there is no member", nil, false, "", nil},
		{"delete", "the member takes away what was delivered", nil, true, v1alpha1.DeletionPolicyDelete, s.left},
		{"orphan", "the member leaves it", func(c *v1alpha1.FleetCluster) { c.Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan }, true, v1alpha1.DeletionPolicyOrphan, s.left},
		{"suspended", "what is suspended stays as it is", func(c *v1alpha1.FleetCluster) { c.Spec.Suspend = true }, true, v1alpha1.DeletionPolicyOrphan, s.left},
		{"lost", "somebody says that it is gone", nil, true, v1alpha1.DeletionPolicyDelete, s.lost},
	} {
		c := s.cluster(tc.name, prod)
		s.assignment(tc.name, "apps", placements("apps"))
		if tc.joined {
			s.report(tc.name, v1alpha1.UnitReady)
			says(s, c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
		}
		if tc.change != nil {
			change(s, c, tc.change)
		}
		s.must(s.Delete(s.Context(), c))
		if tc.joined {
			s.assignment(tc.name, tc.reason, func(spec v1alpha1.ClusterAssignmentSpec) bool {
				return spec.Leave == tc.leave && len(spec.Placements) == 1
			})
			says(s, c, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.DeletingReason, v1alpha1.LostAnnotation+"=true")
			if c.Status.Phase != v1alpha1.PhaseDeleting {
				t.Errorf("%s: the phase is %s", tc.name, c.Status.Phase)
			}
			tc.then(tc.name)
		}
		s.gone(c)
		s.gone(&v1alpha1.ClusterAssignment{ObjectMeta: s.meta(tc.name)})
		s.gone(&v1alpha1.ClusterReport{ObjectMeta: s.meta(tc.name)})
	}
	says(s, p, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.NoClusterReason)
	if p.Status.Clusters != 0 {
		t.Errorf("all clusters are gone, and it is on %d", p.Status.Clusters)
	}
}

func (s *stage) left(name string) {
	s.Helper()
	r := &v1alpha1.ClusterReport{ObjectMeta: s.meta(name)}
	s.must(s.Get(s.Context(), client.ObjectKeyFromObject(r), r))
	r.Status.Left = true
	s.must(s.Status().Update(s.Context(), r))
}

func (s *stage) lost(name string) {
	s.Helper()
	change(s, &v1alpha1.FleetCluster{ObjectMeta: s.meta(name)}, func(c *v1alpha1.FleetCluster) {
		c.Annotations = map[string]string{v1alpha1.LostAnnotation: "true"}
	})
}

// What an earlier FleetCluster of a name was told and said does not count for the next.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	c := s.cluster("a", nil)
	s.assignment("a", "nothing", placements())
	s.report("a", v1alpha1.UnitReady, func(r *v1alpha1.ClusterReportStatus) { r.Left = true })
	// It goes without the hub.
	s.stop()
	change(s, c, func(c *v1alpha1.FleetCluster) { c.Finalizers = nil })
	s.must(s.Delete(s.Context(), c))
	s.gone(c)
	next := s.cluster("a", nil)
	s.start(quick)
	r := &v1alpha1.ClusterReport{ObjectMeta: s.meta("a")}
	s.eventually("an empty report of its own", func() (bool, string) {
		err := s.Get(s.Context(), client.ObjectKeyFromObject(r), r)
		return err == nil && metav1.IsControlledBy(r, next) && !r.Status.Left, "another"
	})
	a := s.assignment("a", "nothing", placements())
	s.eventually("an assignment of its own", func() (bool, string) {
		err := s.Get(s.Context(), client.ObjectKeyFromObject(a), a)
		return err == nil && metav1.IsControlledBy(a, next), "another"
	})
}

// A cluster that is on its way out says what it waits for, and what to do where that does not come.
func TestLeavingWord(t *testing.T) {
	t.Parallel()
	const lost = "; if it is lost: kubectl annotate fleetcluster edge -n fleet " + v1alpha1.LostAnnotation + "=true"
	condition := func(kind, reason, message string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message}
	}
	all := []string{v1alpha1.LeaveFinalizer, v1alpha1.ProvisionFinalizer, v1alpha1.AgentFinalizer}
	for _, tc := range []struct {
		name, reason string
		finalizers   []string
		conditions   []metav1.Condition
		want         string
	}{
		{"leaving", "the member lets go before anything else goes", all, nil, "the cluster is leaving the fleet: its agent lets go of what was assigned to it" + lost},
		{"away", "nobody is there to let go", all, []metav1.Condition{condition(v1alpha1.ReachableCondition, v1alpha1.LeaseExpiredReason, "its agent is away")},
			"the cluster is leaving the fleet and is waited for, but its agent is away" + lost},
		{"deleted", "Cluster API takes it apart", all[1:], []metav1.Condition{condition(v1alpha1.ProvisionedCondition, v1alpha1.DeletingReason, "waiting for the end of Cluster edge")},
			"the cluster has left the fleet, and what it was built from is being deleted: waiting for the end of Cluster edge"},
		{"deleted next", "what was said before that is no news", all[1:], []metav1.Condition{condition(v1alpha1.ProvisionedCondition, v1alpha1.ProvisioningReason, "something old")},
			"the cluster has left the fleet, and what it was built from is being deleted"},
		{"agent", "a cluster that is away is not waited for for ever", all[2:], nil,
			"the cluster has left the fleet, and its agent is being taken away; where the cluster does not answer within a minute the agent is left there, which an event tells" + lost},
		{"others", "whose they are is not ours to say", []string{"example.com/keep"}, nil, "the cluster has left the fleet; finalizers of others hold its FleetCluster: example.com/keep"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: "edge", Finalizers: tc.finalizers}}
			c.Status.Conditions = tc.conditions
			deleting(c)
			if got := apimeta.FindStatusCondition(c.Status.Conditions, meta.ReadyCondition).Message; got != tc.want {
				t.Errorf("got  %s\nwant %s: %s", got, tc.want, tc.reason)
			}
		})
	}
}
