package link_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/link"
)

// What a hub assigns runs on the member and is reported; nobody's hand stays in the copy; at rest there is nothing but
// the Lease; the member lets go when its FleetCluster is deleted.
func TestMember(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	revision := h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c := h.cluster("a")
	h.place()
	m := joined(h, c, h.endpoint)
	m.has("app", "one")
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason, "1 unit is ready")
	h.says(c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
	s := h.report("a", "ready", func(s v1alpha1.ClusterReportStatus) bool { return s.Units.Ready == 1 && s.Units.Total == 1 })
	if s.Cluster.AgentVersion != "v1.2.3" || !strings.HasPrefix(s.Cluster.KubernetesVersion, "v1.") || s.Cluster.ID != string(m.who.Member) || s.Units.Summary != "1/1" ||
		s.Assignment != h.assignment("a").Spec.Digest || s.Problem != "" || s.Fleet != nil || s.Left || s.ReportedAt.IsZero() {
		t.Errorf("the report is %+v", s)
	}
	if u := s.Assigned; len(u) != 1 || u[0].Placement != "apps" || u[0].Name != "app" || u[0].State != v1alpha1.UnitReady || !strings.HasSuffix(u[0].Revision, revision[len("main@"):]) {
		t.Errorf("the units are %+v", u)
	}
	if len(s.Sources) != 1 || s.Sources[0].Name != "fleet" {
		t.Errorf("the sources are %+v", s.Sources)
	}
	byHand(h, m)
	defaulted(h, m)
	commit(h, m, c) // what is reported of it was seen after all that was done to the copy, so there is nothing left to tell
	resting(t, m)
	pending(h, m)
	leaving(h, m, c)
}

// commit: the next revision is reported ready only where it runs.
func commit(h *theHub, m *theMember, c *v1alpha1.FleetCluster) {
	h.Helper()
	revision := h.push(map[string]string{"app/config.yaml": configMap("app", "two")})
	h.carriedOut("a", revision)
	got := &corev1.ConfigMap{}
	h.must(m.Get(h.Context(), client.ObjectKey{Namespace: "default", Name: "app"}, got))
	if got.Data["value"] != "two" {
		h.Errorf("it is reported ready at the second revision, and has %v", got.Data)
	}
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
}

// byHand: what somebody does to the copy does not stay, and neither does its loss.
func byHand(h *theHub, m *theMember) {
	h.Helper()
	whole := func(a *v1alpha1.ClusterAssignment) bool {
		ready := apimeta.FindStatusCondition(a.Status.Conditions, meta.ReadyCondition)
		return len(a.Spec.Placements) == 1 && a.Labels[v1alpha1.LabelSelf] == "true" &&
			a.Status.Digest == a.Spec.Digest && ready != nil && ready.Status == metav1.ConditionTrue && ready.ObservedGeneration == a.Generation
	}
	edit := func(how string) { // no Update: the engine writes its status whenever it likes
		own := &v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: "a"}}
		h.must(m.Patch(h.Context(), own, client.RawPatch(types.MergePatchType, []byte(how))))
	}
	m.own("whole", whole)
	before := m.uids()
	edit(`{"spec":{"placements":null}}`)
	m.own("whole again", whole)
	edit(`{"spec":{"leave":"Delete"}}`)
	m.own("whole, and not to be left", func(a *v1alpha1.ClusterAssignment) bool { return a.Spec.Leave == "" && whole(a) })
	edit(`{"metadata":{"annotations":null}}`)
	m.own("noted as copied again", func(a *v1alpha1.ClusterAssignment) bool { return a.WasCopied() && whole(a) })
	edit(`{"metadata":{"labels":null}}`)
	own := m.own("with its label again", whole)
	h.must(m.Delete(h.Context(), own))
	m.own("once more", func(a *v1alpha1.ClusterAssignment) bool { return a.UID != own.UID && whole(a) })
	m.has("app", "one")
	for what, uid := range m.uids() {
		if before[what] != uid {
			h.Errorf("somebody changed the copy, and %s was made anew", what)
		}
		delete(before, what)
	}
	for what := range before {
		h.Errorf("somebody changed the copy, and %s is gone", what)
	}
}

// defaulted: an API that adds something to what the hub assigned, as that of a newer version may, has nothing written again and again, and
// what is assigned next is carried out.
func defaulted(h *theHub, m *theMember) {
	h.Helper()
	definition := &apiextensionsv1.CustomResourceDefinition{}
	h.must(m.Get(h.Context(), client.ObjectKey{Name: "clusterassignments." + v1alpha1.GroupVersion.Group}, definition))
	before := definition.DeepCopy()
	properties := definition.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties
	plans := properties["approvedPlans"]
	plans.Default = &apiextensionsv1.JSON{Raw: []byte(`["sha256:none"]`)}
	properties["approvedPlans"] = plans
	h.must(m.Patch(h.Context(), definition, client.MergeFrom(before)))
	m.own("with what is so by default", func(a *v1alpha1.ClusterAssignment) bool { return len(a.Spec.ApprovedPlans) == 1 })
}

// resting: no write on the member, and no request to the hub but for the Lease.
func resting(t *testing.T, m *theMember) {
	t.Helper()
	before := m.own("there", func(*v1alpha1.ClusterAssignment) bool { return true }).ResourceVersion
	m.asked.reset()
	lease := "PATCH /apis/coordination.k8s.io/v1/namespaces/" + m.who.Namespace + "/leases/a"
	all := map[string]int{}
	eventually(t, "ten renewals", func() (bool, string) {
		for what, n := range m.asked.reset() {
			all[what] += n
		}
		return all[lease] >= 10, ""
	})
	for what, n := range all {
		if what != lease {
			t.Errorf("at rest the hub was asked %d times: %s", n, what)
		}
	}
	if after := m.own("there", func(*v1alpha1.ClusterAssignment) bool { return true }).ResourceVersion; after != before {
		t.Errorf("at rest the copy was written")
	}
}

// pending: a deletion that waits on the member is told, and the hub's approval lets it happen.
func pending(h *theHub, m *theMember) {
	h.Helper()
	h.carriedOut("a", h.push(map[string]string{"app/namespace.yaml": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: held\n"}))
	held := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "held"}}
	h.must(m.Get(h.Context(), client.ObjectKeyFromObject(held), held))
	h.repo.Delete("app/namespace.yaml")
	h.push(map[string]string{"app/other.yaml": configMap("other", "three")})
	s := h.report("a", "a deletion that waits", func(s v1alpha1.ClusterReportStatus) bool { return len(s.Pending) == 1 })
	if p := s.Pending[0]; p.Unit != "Kustomization/bowline-system/app" || !strings.Contains(p.Message, "Namespace/held") {
		h.Errorf("it is %+v", p)
	}
	c := &v1alpha1.FleetCluster{ObjectMeta: h.meta("a")}
	h.must(h.Patch(h.Context(), c, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"`+v1alpha1.ApprovedPlanAnnotation+`":"`+s.Pending[0].Plan+`"}}}`))))
	h.report("a", "nothing that waits", func(s v1alpha1.ClusterReportStatus) bool { return len(s.Pending) == 0 && s.Units.Ready == 1 })
	if err := m.Get(h.Context(), client.ObjectKeyFromObject(held), held); err == nil && held.DeletionTimestamp.IsZero() {
		h.Errorf("what was approved to go is still there")
	}
}

// leaving: the member lets go, says so, and the FleetCluster goes.
func leaving(h *theHub, m *theMember, c *v1alpha1.FleetCluster) {
	h.Helper()
	h.must(h.Delete(h.Context(), c))
	h.eventually("gone", func() (bool, string) {
		err := h.Get(h.Context(), client.ObjectKeyFromObject(c), c)
		return apierrors.IsNotFound(err), ""
	})
	eventually(h, "told that it has left", func() (bool, string) { return m.left.Load(), m.log.String() })
	m.stop()
	for _, o := range []client.Object{
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}},
		&v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: "a"}},
	} {
		if err := m.Get(h.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			h.Errorf("the member has left, and %s is there: %v", o.GetName(), err)
		}
	}
}

// An agent whose clock is wrong is as reachable as any; one that is not told for it does nothing of it; the assignment of
// another cluster cannot be read; one that is deleted deletes nothing.
func TestStrangers(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c, other := h.cluster("a"), h.cluster("b")
	h.place()
	m := joined(h, c, h.endpoint, func(s *link.Membership) { s.Clock = clocktesting.NewFakePassiveClock(time.Now().Add(-5 * time.Minute)) })
	m.has("app", "one")
	h.says(c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	agent, err := client.New(m.who.Config(), client.Options{Scheme: newScheme(t)})
	h.must(err)
	if err := agent.Get(t.Context(), client.ObjectKeyFromObject(other), &v1alpha1.ClusterAssignment{}); !apierrors.IsForbidden(err) {
		t.Errorf("the assignment of another cluster can be read: %v", err)
	}
	if err := agent.List(t.Context(), &v1alpha1.ClusterAssignmentList{}, client.InNamespace(h.namespace)); !apierrors.IsForbidden(err) {
		t.Errorf("all assignments can be listed: %v", err)
	}
	h.stop() // so that nobody puts right what comes now
	a := h.assignment("a")
	a.Spec.Incarnation, a.Spec.Placements = strings.Repeat("0", 32), nil
	h.must(h.Update(t.Context(), a))
	h.report("a", "a problem", func(s v1alpha1.ClusterReportStatus) bool {
		return strings.Contains(s.Problem, "another cluster of this name") && s.Units.Ready == 1
	})
	h.must(h.Delete(t.Context(), a))
	m.own("as it was", func(a *v1alpha1.ClusterAssignment) bool { return len(a.Spec.Placements) == 1 })
	h.must(m.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}}))
	m.has("app", "one")
	// Without its rights an agent says what to do, and goes on.
	h.must(h.Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: h.meta("bowline-agent-a")}))
	eventually(t, "told what to do", func() (bool, string) {
		return strings.Contains(m.log.String(), "not any more: bowline join"), m.log.String()
	})
	h.must(m.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}}))
	m.has("app", "one")
}
