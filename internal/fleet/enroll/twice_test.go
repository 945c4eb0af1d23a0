package enroll_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/enroll"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// A cluster that is the member of one FleetCluster is not let in as another, and what becomes of that other one does nothing
// to it: a FleetCluster that was renamed, or copied with its kubeconfig.
func TestOneClusterTwice(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{}), newMember(t)
	h.reachable("edge", m.kubeconfig())
	c := h.declare("edge", byKubeconfig("edge"))
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	credentials := m.joins(h, m.invited(h, join.Invitation{}))
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	deployed := m.image(t.Context())

	other := h.declare("renamed", byKubeconfig("edge"))
	h.condition(other, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	message := h.says(other, metav1.ConditionFalse, v1alpha1.IdentityConflictReason)
	for _, part := range []string{string(m.id), "FleetCluster/" + h.namespace + "/edge", "delete one of the two"} {
		if !strings.Contains(message, part) {
			t.Errorf("it says %q, without %q", message, part)
		}
	}
	h.must(h.Delete(t.Context(), other))
	h.eventually("the other one is gone", func() (bool, string) {
		return apierrors.IsNotFound(h.Get(t.Context(), client.ObjectKeyFromObject(other), other)), strings.Join(other.Finalizers, " ")
	})
	if image := m.image(t.Context()); image != deployed {
		t.Errorf("the agent runs %q, and ran %q", image, deployed)
	}
	if has, err := (join.Store{Client: m}).Load(t.Context()); err != nil || has == nil || has.UID != c.UID {
		t.Errorf("the agent has the credentials %v (%v), and had those of %s", has, err, c.UID)
	}
	h.rights(credentials, true)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
}

// A FleetCluster that was installed on a cluster and never joined leaves the agent alone that belongs to somebody else by then.
func TestAgentOfAnother(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{}), newMember(t)
	h.reachable("edge", m.kubeconfig())
	first, second := h.declare("first", byKubeconfig("edge")), h.declare("second", byKubeconfig("edge"))
	h.condition(first, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	invitation := m.invited(h, join.Invitation{})
	h.says(first, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason)
	h.condition(second, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	m.joins(h, m.invited(h, invitation))
	h.says(second, metav1.ConditionTrue, v1alpha1.JoinedReason)
	h.must(h.Delete(t.Context(), first))
	h.eventually("the first one is gone", func() (bool, string) {
		return apierrors.IsNotFound(h.Get(t.Context(), client.ObjectKeyFromObject(first), first)), strings.Join(first.Finalizers, " ")
	})
	if m.image(t.Context()) == "" {
		t.Error("the agent of the second one is gone")
	}
	if has, err := (join.Store{Client: m}).Load(t.Context()); err != nil || has == nil || has.UID != second.UID {
		t.Errorf("the agent has the credentials %v (%v)", has, err)
	}
}
