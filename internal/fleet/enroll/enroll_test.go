package enroll_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/enroll"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// A cluster with a kubeconfig is invited once, joins, is upgraded with its hub, and has no agent any more when it left.
func TestLife(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{}), newMember(t)
	h.reachable("edge", m.kubeconfig())
	c := h.declare("edge", byKubeconfig("edge"))
	if message := h.says(c, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason); !strings.Contains(message, "control plane answers") {
		t.Errorf("it says %q of a cluster that is not there yet", message)
	}
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	invitation := m.invited(h, join.Invitation{})
	h.eventually("it says what it waits for", func() (bool, string) {
		message := h.says(c, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason)
		return strings.Contains(message, "has not asked for its certificate yet"), message
	})

	// Another hub in its place goes on where the first was, and invites nobody again.
	h.end()
	h.run(enroll.Options{Image: "registry.example.com/bowline:v2"})
	h.eventually("the agent is upgraded", func() (bool, string) {
		image := m.image(t.Context())
		return image == "registry.example.com/bowline:v2", image
	})
	if again := m.invited(h, join.Invitation{}); again.RequestName != invitation.RequestName {
		t.Fatalf("invited as %s and then as %s", invitation.RequestName, again.RequestName)
	}
	credentials := m.joins(h, invitation)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	h.rights(credentials, true)

	h.end()
	h.run(enroll.Options{Image: "registry.example.com/bowline:v3"})
	h.eventually("the agent that has joined is upgraded", func() (bool, string) {
		image := m.image(t.Context())
		return image == "registry.example.com/bowline:v3", image
	})
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)

	h.must(h.Delete(t.Context(), c))
	h.eventually("it is gone", func() (bool, string) {
		return apierrors.IsNotFound(h.Get(t.Context(), client.ObjectKeyFromObject(c), c)), strings.Join(c.Finalizers, " ")
	})
	for _, o := range []client.Object{
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: agent.Name}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: join.StoreNamespace, Name: join.StoreName}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: agent.InvitationName}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: agent.Name}},
	} {
		if err := m.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			t.Errorf("%T %s is still there: %v", o, o.GetName(), err)
		}
	}
	if image := m.image(t.Context()); image != "" {
		t.Errorf("the Deployment is still there, with %s", image)
	}
	if err := m.Get(t.Context(), client.ObjectKey{Name: v1alpha1.MemberNamespace}, &corev1.Namespace{}); err != nil {
		t.Errorf("the namespace went: %v", err)
	}
}

// An invitation that nobody used in its time is replaced; one that is good is not. A copy of one that was used is worth nothing.
func TestInvitations(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(time.Now())
	h, m := newHub(t, enroll.Options{Clock: clock}), newMember(t)
	h.reachable("shop-kubeconfig", m.kubeconfig())
	c := h.declare("shop", byTemplate())
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	first := m.invited(h, join.Invitation{})
	h.says(c, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason)

	clock.SetTime(time.Now().Add(join.InvitationLife))
	h.nudge(c)
	second := m.invited(h, first)
	if _, err := m.join(t.Context(), first); err == nil {
		t.Error("an invitation that was replaced is good for a certificate")
	}
	clock.SetTime(time.Now())
	m.joins(h, second)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)

	thief := newMember(t)
	if _, err := thief.join(t.Context(), second); err == nil {
		t.Error("an invitation that was used is good for another cluster")
	}
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
}

// A cluster that was built anew under its name is let in, and its predecessor has no rights any more.
func TestRebuilt(t *testing.T) {
	t.Parallel()
	h, old, anew := newHub(t, enroll.Options{}), newMember(t), newMember(t)
	h.reachable("shop-kubeconfig", old.kubeconfig())
	c := h.declare("shop", byTemplate())
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	before := old.joins(h, old.invited(h, join.Invitation{}))
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	h.rights(before, true)

	h.reachable("shop-kubeconfig", anew.kubeconfig())
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionFalse)
	h.condition(c, v1alpha1.ReachableCondition, metav1.ConditionFalse)
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	invitation := anew.invited(h, join.Invitation{})
	h.rights(before, false)
	after := anew.joins(h, invitation)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	h.rights(after, true)
	h.rights(before, false)
}

// A kubeconfig that reaches another cluster than the one which joined is for people to decide on.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	h, first, second := newHub(t, enroll.Options{}), newMember(t), newMember(t)
	h.reachable("edge", first.kubeconfig())
	c := h.declare("edge", byKubeconfig("edge"))
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	before := first.joins(h, first.invited(h, join.Invitation{}))
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)

	h.reachable("edge", second.kubeconfig())
	h.condition(c, v1alpha1.ReachableCondition, metav1.ConditionFalse)
	message := h.says(c, metav1.ConditionFalse, v1alpha1.IdentityConflictReason)
	for _, part := range []string{string(first.id), string(second.id), "bowline join edge -n " + h.namespace + " --replace"} {
		if !strings.Contains(message, part) {
			t.Errorf("it says %q, without %q", message, part)
		}
	}
	if image := second.image(t.Context()); image != "" {
		t.Error("an agent was installed on a cluster that may be somebody else's")
	}
	h.must(join.Replace(t.Context(), h.Client, client.ObjectKeyFromObject(c)))
	after := second.joins(h, second.invited(h, join.Invitation{}))
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	h.rights(before, false)
	h.rights(after, true)
}

// Of two clusters that claim one name the second is told on the FleetCluster, for as long as it can still ask.
func TestTwoClaim(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(time.Now())
	h, first, second := newHub(t, enroll.Options{Clock: clock}), newMember(t), newMember(t)
	c := h.declare("field", v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}})
	if message := h.says(c, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason); !strings.Contains(message, "bowline join field -n "+h.namespace) {
		t.Errorf("it says %q, and not how to join", message)
	}
	invite := func() join.Invitation {
		endpoint, err := join.EndpointOf(h.config)
		h.must(err)
		i, _, err := join.Invite(t.Context(), h.Client, c, endpoint)
		h.must(err)
		return i
	}
	first.joins(h, invite())
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	if _, err := second.join(t.Context(), invite()); err == nil {
		t.Fatal("a second cluster has joined")
	}
	if message := h.says(c, metav1.ConditionFalse, v1alpha1.IdentityConflictReason); !strings.Contains(message, "--replace") {
		t.Errorf("it says %q, and no remedy", message)
	}
	clock.SetTime(time.Now().Add(join.InvitationLife))
	h.nudge(c)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	if c.Status.Incarnation != (join.Identity{Namespace: c.Namespace, Name: c.Name, UID: c.UID, Member: first.id}).Incarnation() {
		t.Error("the first cluster has lost its place")
	}
}

// What keeps the agent from being installed is told, without what is in the kubeconfig, and it is installed when that is over.
func TestInstallFailed(t *testing.T) {
	t.Parallel()
	const token = "a-token-that-nobody-may-see"
	h, m := newHub(t, enroll.Options{}), newMember(t)
	broken := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"` + m.Config.Host + `"}}],"users":[{"name":"u","user":{"token":"` + token + `"}}]}`
	tests := []struct {
		name, reason string
		kubeconfig   []byte
		says         string
	}{
		{"none", "the Secret is named", nil, "Secret " + h.namespace + "/none: it is not there"},
		{"unreadable", "what it holds is not told", []byte(token + ": ["), "it cannot be read as a kubeconfig"},
		{"refused", "the cluster that refuses is named", []byte(broken), m.Config.Host},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.kubeconfig != nil {
				h.reachable(tt.name, tt.kubeconfig)
			}
			c := h.declare(tt.name, byKubeconfig(tt.name))
			h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
			message := h.says(c, metav1.ConditionFalse, v1alpha1.InstallFailedReason)
			if !strings.Contains(message, tt.says) || strings.Contains(message, token) {
				t.Errorf("it says %q, want %q: %s", message, tt.says, tt.reason)
			}
			h.reachable(tt.name, m.kubeconfig())
			h.says(c, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason)
		})
	}
}

// An agent that has lost its certificate is invited again as who it was.
func TestForgotten(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{}), newMember(t)
	h.reachable("shop-kubeconfig", m.kubeconfig())
	c := h.declare("shop", byTemplate())
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	first := m.invited(h, join.Invitation{})
	m.joins(h, first)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	was := c.Status.Incarnation
	h.must(join.Uninvite(t.Context(), h.Client, client.ObjectKeyFromObject(c)))
	h.must(join.Store{Client: m}.Forget(t.Context()))
	h.condition(c, v1alpha1.ReachableCondition, metav1.ConditionFalse)
	m.joins(h, m.invited(h, first))
	h.condition(c, v1alpha1.ReachableCondition, metav1.ConditionTrue)
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	if c.Status.Incarnation != was {
		t.Errorf("it is %s, and was %s", c.Status.Incarnation, was)
	}
}

// A cluster that is lost does not keep its FleetCluster, and what may be left there is told.
func TestLost(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{Patience: time.Second}), newMember(t)
	h.reachable("edge", m.kubeconfig())
	c := h.declare("edge", byKubeconfig("edge"))
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	m.joins(h, m.invited(h, join.Invitation{}))
	h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	m.Kill()
	before := c.DeepCopy()
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.LostAnnotation, "true")
	h.must(h.Patch(t.Context(), c, client.MergeFrom(before)))
	h.must(h.Delete(t.Context(), c))
	h.eventually("it is gone", func() (bool, string) {
		return apierrors.IsNotFound(h.Get(t.Context(), client.ObjectKeyFromObject(c), c)), strings.Join(c.Finalizers, " ")
	})
	h.eventually("it is told", func() (bool, string) {
		var all corev1.EventList
		h.must(h.List(t.Context(), &all, client.InNamespace(h.namespace)))
		said := ""
		for _, e := range all.Items {
			said += e.Reason + ": " + e.Message + "\n"
		}
		return strings.Contains(said, "AgentNotRemoved: ") && strings.Contains(said, "ClusterRoleBinding bowline-agent"), said
	})
}

// A hub that tells its members an address which only its own cluster has says so where the agent is waited for.
func TestInside(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{Inside: true}), newMember(t)
	h.reachable("edge", m.kubeconfig())
	c := h.declare("edge", byKubeconfig("edge"))
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	m.invited(h, join.Invitation{})
	h.eventually("it says what to set", func() (bool, string) {
		message := h.says(c, metav1.ConditionFalse, v1alpha1.AwaitingJoinReason)
		return strings.Contains(message, h.config.Host+", which is an address inside of the hub's own cluster") && strings.Contains(message, "--hub-url"), message
	})
}

// An agent that the hub cannot upgrade is told when it is older than the hub, for as long as it is.
func TestOlder(t *testing.T) {
	t.Parallel()
	h, m := newHub(t, enroll.Options{Version: "v1.10.0"}), newMember(t)
	c := h.declare("field", v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}})
	endpoint, err := join.EndpointOf(h.config)
	h.must(err)
	i, _, err := join.Invite(t.Context(), h.Client, c, endpoint)
	h.must(err)
	m.joins(h, i)
	runs := func(version string) {
		h.eventually("write the version", func() (bool, string) {
			h.must(h.Get(t.Context(), client.ObjectKeyFromObject(c), c))
			before := c.DeepCopy()
			c.Status.AgentVersion = version
			err := h.Status().Patch(t.Context(), c, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
			return err == nil, "a conflict"
		})
	}
	const told = "; it is v1.9.0 and the hub v1.10.0, to upgrade it: bowline join field -n "
	runs("v1.9.0")
	h.eventually("it says that it is older", func() (bool, string) {
		message := h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
		return strings.Contains(message, told+h.namespace), message
	})
	runs("v1.10.0")
	h.eventually("it says no more that it is older", func() (bool, string) {
		message := h.says(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
		return !strings.Contains(message, "older") && !strings.Contains(message, "upgrade"), message
	})
}
