package link_test

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// A master and a tenant of its own of one name: who was there first keeps the name, and the other one says what is wrong. What runs
// on the master goes on whatever becomes of the tenant.
func TestTenantWithTheNameOfItsMaster(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c := h.cluster("a")
	h.place()
	m := newMember(t)
	uid, err := join.Member(t.Context(), m.Client)
	h.must(err)
	m.who, err = join.Join(t.Context(), join.Store{Client: m.Client}, h.invite(c, h.endpoint), uid)
	h.must(err)

	// The tenant was there before its master had a hub.
	tenant := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: "a"}, Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	h.must(m.Create(t.Context(), tenant))
	its := &v1alpha1.ClusterAssignment{ObjectMeta: *tenant.ObjectMeta.DeepCopy()}
	its.ResourceVersion, its.UID = "", ""
	its.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(tenant, v1alpha1.GroupVersion.WithKind(v1alpha1.FleetClusterKind))}
	h.must(m.Create(t.Context(), its))
	m.run()
	h.report("a", "a problem", func(s v1alpha1.ClusterReportStatus) bool {
		return strings.Contains(s.Problem, "FleetCluster/bowline-system/a of this cluster's own fleet has the name that the copy needs")
	})
	h.says(c, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.UnitsFailedReason, "declare one of the two clusters under another name")
	now := &v1alpha1.ClusterAssignment{}
	h.must(m.Get(t.Context(), client.ObjectKeyFromObject(its), now))
	if now.UID != its.UID || now.Labels[v1alpha1.LabelSelf] != "" || now.Spec.Incarnation != "" || len(now.Spec.Placements) != 0 {
		t.Errorf("the tenant's assignment was written: %+v", now)
	}
	h.must(m.Delete(t.Context(), tenant))
	eventually(t, "gone", func() (bool, string) {
		return apierrors.IsNotFound(m.Get(t.Context(), client.ObjectKeyFromObject(tenant), &v1alpha1.FleetCluster{})), m.log.String()
	})
	// Nobody collects what is left over here; the engine may have deleted it, and the link have made the copy in its place.
	if err := client.IgnoreNotFound(m.Delete(t.Context(), its, client.Preconditions{UID: &its.UID})); !apierrors.IsConflict(err) {
		h.must(err)
	}
	m.has("app", "one")
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)

	// The copy is there first.
	own := m.own("whole", func(a *v1alpha1.ClusterAssignment) bool { return a.WasCopied() && len(a.Spec.Placements) == 1 })
	before := m.uids()
	tenant = &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: "a"}, Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	h.must(m.Create(t.Context(), tenant))
	refused := func() (bool, string) {
		h.must(m.Get(t.Context(), client.ObjectKeyFromObject(tenant), tenant))
		ready := apimeta.FindStatusCondition(tenant.Status.Conditions, meta.ReadyCondition)
		return ready != nil && ready.Reason == v1alpha1.ReasonNameTaken, m.log.String()
	}
	eventually(t, "refused", refused)
	h.must(m.Delete(t.Context(), tenant))
	eventually(t, "gone", func() (bool, string) {
		return apierrors.IsNotFound(m.Get(t.Context(), client.ObjectKeyFromObject(tenant), &v1alpha1.FleetCluster{})), m.log.String()
	})
	m.own("as it was", func(a *v1alpha1.ClusterAssignment) bool {
		return a.UID == own.UID && a.Generation == own.Generation && a.WasCopied()
	})
	for what, uid := range m.uids() {
		if before[what] != uid {
			t.Errorf("%s was made anew", what)
		}
		delete(before, what)
	}
	for what := range before {
		t.Errorf("%s is gone", what)
	}
}
