package join_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// named is an object of the hub's by the name that the invitation has for everything.
func (h *hub) named(o client.Object, name string) client.Object {
	o.SetNamespace(h.namespace)
	o.SetName(name)
	return o
}

func TestJoin(t *testing.T) {
	h := newHub(t, join.Options{Linger: -1})
	c := h.cluster("berlin")
	i, until, err := join.Invite(t.Context(), h.Client, c, h.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if good := time.Until(until); good < 55*time.Minute || good > 65*time.Minute {
		t.Errorf("an invitation is good for %s, want an hour", good)
	}
	credentials, err := h.join(i, "member-1")
	if err != nil {
		t.Fatal(err)
	}
	id := join.Identity{Namespace: h.namespace, Name: "berlin", UID: c.UID, Member: "member-1"}
	if got, want := credentials.User(), "bowline:agent:"+h.namespace+":berlin:"+id.Incarnation(); got != want {
		t.Errorf("the agent is %s, want %s", got, want)
	}
	h.until(c, "the cluster has joined", func() bool {
		return apimeta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.JoinedCondition)
	})
	if c.Status.Incarnation != id.Incarnation() || c.Status.ClusterID != "member-1" {
		t.Errorf("the status names incarnation %q of %q, want %q of member-1", c.Status.Incarnation, c.Status.ClusterID, id.Incarnation())
	}
	for _, o := range []client.Object{&corev1.Secret{}, &corev1.ServiceAccount{}} {
		h.gone(h.named(o, i.RequestName))
	}
	for _, o := range []client.Object{&rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}} {
		o.SetName(i.RequestName)
		h.gone(o)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", i, i, i), "eyJ") || strings.Contains(fmt.Sprintf("%v %+v %#v", credentials, *credentials, credentials), "LS0t") {
		t.Error("what is printed holds a secret")
	}
}

// TestRights does with a certificate all that an agent does, and much that it may not.
func TestRights(t *testing.T) {
	h := newHub(t, join.Options{})
	mine, credentials := h.joined("mine", "member-1")
	h.cluster("yours")
	agent := connect(t, credentials.Config())
	ctx := t.Context()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: h.namespace, Name: name} }
	only := func(name string) []client.ListOption {
		return []client.ListOption{client.InNamespace(h.namespace), client.MatchingFields{"metadata.name": name}}
	}
	report := func(name string) error {
		r := &v1alpha1.ClusterReport{}
		if err := h.Get(ctx, client.ObjectKey{Namespace: h.namespace, Name: name}, r); err != nil {
			t.Fatal(err)
		}
		r.Status.Cluster.Nodes++
		return agent.Status().Update(ctx, r)
	}
	renew := func(name string) error {
		l := &coordinationv1.Lease{ObjectMeta: meta(name)}
		if err := agent.Get(ctx, client.ObjectKeyFromObject(l), l); err != nil {
			return err
		}
		l.Spec.HolderIdentity = ptr.To("agent")
		return agent.Update(ctx, l)
	}
	if err := h.Create(ctx, &coordinationv1.Lease{ObjectMeta: meta("yours")}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, reason string
		do           func() error
		may          bool
	}{
		{"read its assignment", "it carries it out", func() error { return agent.Get(ctx, client.ObjectKeyFromObject(mine), &v1alpha1.ClusterAssignment{}) }, true},
		{"list its assignment", "watches begin so", func() error { return agent.List(ctx, &v1alpha1.ClusterAssignmentList{}, only("mine")...) }, true},
		{"report", "the hub reads it", func() error { return report("mine") }, true},
		{"renew its Lease", "that is how it is known to be there", func() error { return renew("mine") }, true},
		{"read another's assignment", "it may hold what is not for everybody", func() error {
			return agent.Get(ctx, client.ObjectKey{Namespace: h.namespace, Name: "yours"}, &v1alpha1.ClusterAssignment{})
		}, false},
		{"list another's assignment", "as to read it", func() error { return agent.List(ctx, &v1alpha1.ClusterAssignmentList{}, only("yours")...) }, false},
		{"list all assignments", "as to read them", func() error {
			return agent.List(ctx, &v1alpha1.ClusterAssignmentList{}, client.InNamespace(h.namespace))
		}, false},
		{"report for another", "the hub would believe it", func() error { return report("yours") }, false},
		{"make a report", "one with a name that is not its own", func() error { return agent.Create(ctx, &v1alpha1.ClusterReport{ObjectMeta: meta("third")}) }, false},
		{"renew another's Lease", "that one would seem to live", func() error { return renew("yours") }, false},
		{"write its assignment", "the hub says what runs", func() error {
			return agent.Update(ctx, &v1alpha1.ClusterAssignment{ObjectMeta: meta("mine"), Spec: v1alpha1.ClusterAssignmentSpec{Digest: "mine"}})
		}, false},
		{"read its FleetCluster", "it has no need to", func() error { return agent.Get(ctx, client.ObjectKeyFromObject(mine), &v1alpha1.FleetCluster{}) }, false},
		{"read Secrets", "no Secret of the hub is an agent's", func() error { return agent.List(ctx, &corev1.SecretList{}, client.InNamespace(h.namespace)) }, false},
		{"list requests", "they name other agents", func() error { return agent.List(ctx, &certificatesv1.CertificateSigningRequestList{}) }, false},
		{"bind itself to more", "rights are the hub's to give", func() error {
			return agent.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta("more"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"}})
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do()
			if tt.may && err != nil {
				t.Errorf("it cannot: %v (%s)", err, tt.reason)
			}
			if !tt.may && !apierrors.IsForbidden(err) {
				t.Errorf("it is not forbidden: %v (%s)", err, tt.reason)
			}
		})
	}
}

// refused asserts that somebody could not join, and that this is final.
func refused(t testing.TB, err error, says string) {
	t.Helper()
	if !errors.Is(err, failure.Of(failure.Denied)) || !strings.Contains(err.Error(), says) {
		t.Errorf("it is not denied because of %q: %v", says, err)
	}
}

func TestInvitationIsForOne(t *testing.T) {
	t.Run("used twice", func(t *testing.T) {
		h := newHub(t, join.Options{Linger: time.Hour})
		i := h.invite(h.cluster("berlin"))
		if _, err := h.join(i, "member-1"); err != nil {
			t.Fatal(err)
		}
		_, err := h.join(i, "member-2")
		refused(t, err, "bowline join")
	})
	t.Run("used again after its request was deleted", func(t *testing.T) {
		h := newHub(t, join.Options{Linger: time.Hour})
		i := h.invite(h.cluster("berlin"))
		if _, err := h.join(i, "member-1"); err != nil {
			t.Fatal(err)
		}
		r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: i.RequestName}}
		if err := h.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		_, err := h.join(i, "member-1")
		refused(t, err, join.InvitationUsedReason)
	})
	t.Run("used again when it has ended", func(t *testing.T) {
		h := newHub(t, join.Options{Linger: -1})
		i := h.invite(h.cluster("berlin"))
		if _, err := h.join(i, "member-1"); err != nil {
			t.Fatal(err)
		}
		h.gone(h.named(&corev1.Secret{}, i.RequestName))
		_, err := h.join(i, "member-2")
		refused(t, err, "bowline join")
	})
	t.Run("invited again", func(t *testing.T) {
		h := newHub(t, join.Options{})
		c := h.cluster("berlin")
		before := h.invite(c)
		now := h.invite(c)
		_, err := h.join(before, "member-1")
		refused(t, err, "bowline join")
		if _, err := h.join(now, "member-1"); err != nil {
			t.Errorf("the newer invitation is not good: %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		h := newHub(t, join.Options{Linger: time.Hour})
		i := h.invite(h.cluster("berlin"))
		same := key(t)
		for range 2 {
			if _, err := join.Request(t.Context(), i, "member-1", same); err != nil {
				t.Errorf("an agent that was interrupted cannot go on with its request: %v", err)
			}
		}
	})
}
