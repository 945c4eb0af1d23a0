package push

import (
	"errors"
	"net"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// An engine runs for a cluster that is pushed to, with the cluster's identity, and goes on whatever ends it.
func TestAnEngineRuns(t *testing.T) {
	s := newStage(t)
	other := testkit.Other(t)
	member := connect(t, other)
	c := s.cluster("shop", other)
	e := s.started()
	want := s.identity(c, member)
	if m := e.membership; m.Cluster != client.ObjectKeyFromObject(c) || m.Incarnation != want.Incarnation() || m.Hub().Host != testkit.Cluster(t).Host {
		t.Errorf("the engine speaks for %+v to %s, want incarnation %s", m, m.Hub().Host, want.Incarnation())
	}
	if e.config.Host != other.Host {
		t.Errorf("the engine serves %s, not %s", e.config.Host, other.Host)
	}
	s.joined(c, metav1.ConditionTrue, v1alpha1.JoinedReason, string(want.Member))
	if c.Status.Incarnation != want.Incarnation() || c.Status.ClusterID != string(want.Member) {
		t.Errorf("the status says %q of cluster %q", c.Status.Incarnation, c.Status.ClusterID)
	}
	var copies v1alpha1.ClusterAssignmentList
	if err := member.List(t.Context(), &copies); err != nil {
		t.Errorf("the member lacks what its engine needs: %v", err)
	}
	if err := member.Get(t.Context(), client.ObjectKey{Name: v1alpha1.MemberNamespace}, &corev1.Namespace{}); err != nil {
		t.Error(err)
	}

	e.fail <- errors.New("no answer")
	e = s.started() // and what a server that does not answer costs is told by the Lease
	e.fail <- &failure.Error{Op: "list", Object: "nodes", Kind: failure.Denied, Err: errors.New("no")}
	s.joined(c, metav1.ConditionFalse, v1alpha1.InstallFailedReason, "list nodes: no")
	e = s.started()
	s.joined(c, metav1.ConditionTrue, v1alpha1.JoinedReason)

	s.change(c, func(c *v1alpha1.FleetCluster) { c.Spec.Agent.Mode = v1alpha1.AgentPull })
	s.stopped(e)
	s.eventually("what the engine kept is forgotten", func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Equal(s.forgotten, []string{want.Incarnation()}), ""
	})
}

// A kubeconfig counts as it is now.
func TestKubeconfigs(t *testing.T) {
	s := newStage(t)
	other := testkit.Other(t)
	c := s.cluster("shop", other)
	key := client.ObjectKeyFromObject(c)
	first := s.started()
	s.secret("shop", other, "second")
	s.pusher.Wake(key)
	second := s.started()
	if first.ctx.Err() == nil {
		t.Error("two engines run at one time")
	}
	s.must(s.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: s.namespace}}))
	s.pusher.Wake(key)
	s.stopped(second)
	s.joined(c, metav1.ConditionFalse, v1alpha1.InstallFailedReason, "shop: it is not there", "spec.kubeConfig.secretRef")
	s.secret("shop", other, "second")
	s.pusher.Wake(key)
	s.started()
	s.joined(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
}

// Which of two clusters is meant is for people to say, unless the hub's own template made both.
func TestAnotherCluster(t *testing.T) {
	s := newStage(t)
	first, second := testkit.Other(t), testkit.Start(t).Config
	written := s.cluster("written", first)
	e := s.started()
	s.joined(written, metav1.ConditionTrue, v1alpha1.JoinedReason)
	s.secret("written", second, "second")
	s.pusher.Wake(client.ObjectKeyFromObject(written))
	s.joined(written, metav1.ConditionFalse, v1alpha1.IdentityConflictReason, "leads to another cluster", "bowline join written -n "+s.namespace+" --replace")
	s.stopped(e)
	s.must(join.Replace(t.Context(), s.Client, client.ObjectKeyFromObject(written)))
	if e = s.started(); e.config.Host != second.Host {
		t.Errorf("the engine serves %s", e.config.Host)
	}
	s.joined(written, metav1.ConditionTrue, v1alpha1.JoinedReason)
	s.must(s.Delete(t.Context(), written))
	s.stopped(e)

	s.secret("built-kubeconfig", first, "first")
	built := s.cluster("built", first, func(c *v1alpha1.FleetCluster) {
		c.Spec.KubeConfig, c.Spec.Template = nil, &v1alpha1.TemplateReference{Name: "local"}
	})
	s.started()
	s.joined(built, metav1.ConditionTrue, v1alpha1.JoinedReason)
	s.secret("built-kubeconfig", second, "second")
	s.pusher.Wake(client.ObjectKeyFromObject(built))
	want := s.identity(built, connect(t, second))
	if e = s.started(); e.membership.Incarnation != want.Incarnation() {
		t.Errorf("the engine speaks for %s, want %s", e.membership.Incarnation, want.Incarnation())
	}
	s.joined(built, metav1.ConditionTrue, v1alpha1.JoinedReason, string(want.Member))
}

// The engine of a cluster that is being deleted has to let go, and then ends.
func TestTheEngineStaysUntilTheMemberHasLeft(t *testing.T) {
	s := newStage(t)
	other := testkit.Other(t)
	held := func(c *v1alpha1.FleetCluster) { c.Finalizers = []string{v1alpha1.LeaveFinalizer} }
	c := s.cluster("shop", other, held)
	e := s.started()
	s.joined(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	s.must(s.Delete(t.Context(), c))
	// A kubeconfig that changes meanwhile makes no difference.
	s.secret("shop", other, "second")
	s.pusher.Wake(client.ObjectKeyFromObject(c))
	s.stopped(e)
	e = s.started()
	e.membership.Left()
	s.stopped(e)
	s.change(c, func(c *v1alpha1.FleetCluster) { c.Finalizers = nil })
	s.eventually("what the engine kept is forgotten", func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(s.forgotten, e.membership.Incarnation), ""
	})
	select {
	case <-s.engines:
		t.Error("an engine is started for a cluster that has left")
	default:
	}
}

// A hub that is restarted while a member leaves goes on with it, and forgets what went while it was off.
func TestARestartWhileAMemberLeaves(t *testing.T) {
	s := newStage(t)
	c := s.cluster("shop", testkit.Other(t), func(c *v1alpha1.FleetCluster) { c.Finalizers = []string{v1alpha1.LeaveFinalizer} })
	never := s.cluster("never", &rest.Config{Host: "https://127.0.0.1:1"}, func(c *v1alpha1.FleetCluster) { c.Finalizers = []string{v1alpha1.LeaveFinalizer} })
	before := s.started()
	s.joined(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
	s.must(s.Delete(t.Context(), c))
	s.must(s.Delete(t.Context(), never))
	s.end()
	s.stopped(before)
	s.kept = []string{"stale", before.membership.Incarnation}
	s.begin()
	e := s.started()
	if e.membership.Incarnation != before.membership.Incarnation {
		t.Errorf("the engine speaks for %s, and spoke for %s", e.membership.Incarnation, before.membership.Incarnation)
	}
	s.mu.Lock()
	if !slices.Equal(s.forgotten, []string{"stale"}) {
		t.Errorf("when it began, the hub forgot %s, want what is nobody's", s.forgotten)
	}
	s.mu.Unlock()
	e.membership.Left()
	s.stopped(e)
	s.change(c, func(c *v1alpha1.FleetCluster) { c.Finalizers = nil })
	s.eventually("what the engine kept is forgotten", func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(s.forgotten, e.membership.Incarnation), ""
	})
	if s.pusher.current(client.ObjectKeyFromObject(never)) != nil {
		t.Error("an engine is begun for a cluster that was never filled and is being deleted")
	}
}

func TestWhoseClusterItIs(t *testing.T) {
	s := newStage(t)
	other := testkit.Other(t)
	member := connect(t, other)

	hub := s.cluster("hub", testkit.Cluster(t))
	s.joined(hub, metav1.ConditionFalse, v1alpha1.IdentityConflictReason, "leads to the hub itself")

	first := s.cluster("first", other)
	e := s.started()
	second := s.cluster("second", other)
	s.joined(second, metav1.ConditionFalse, v1alpha1.IdentityConflictReason, "leads to the cluster of FleetCluster/"+s.namespace+"/first")
	s.must(s.Delete(t.Context(), first))
	s.stopped(e)
	e = s.started()
	s.joined(second, metav1.ConditionTrue, v1alpha1.JoinedReason)
	s.must(s.Delete(t.Context(), second))
	s.stopped(e)

	foreign := &v1alpha1.ClusterAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: "elsewhere", Namespace: v1alpha1.MemberNamespace, Labels: map[string]string{v1alpha1.LabelSelf: "true"}},
		Spec:       v1alpha1.ClusterAssignmentSpec{Incarnation: "0123456789abcdef0123456789abcdef", Digest: "d"},
	}
	s.must(member.Create(t.Context(), foreign))
	third := s.cluster("third", other)
	s.joined(third, metav1.ConditionFalse, v1alpha1.IdentityConflictReason, "ClusterAssignment "+v1alpha1.MemberNamespace+"/elsewhere", "another FleetCluster")
	s.must(member.Delete(t.Context(), foreign))
	s.started()
	s.joined(third, metav1.ConditionTrue, v1alpha1.JoinedReason)
	select {
	case e := <-s.engines:
		t.Errorf("an engine was started for %s, which is nobody's to serve", e.membership.Cluster)
	default:
	}
}

// A member that accepts connections and says nothing holds up no other.
func TestAMemberThatHangs(t *testing.T) {
	s := newStage(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	s.must(err)
	t.Cleanup(func() { _ = l.Close() })
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} { // more than there are workers
		s.cluster(name, &rest.Config{Host: "https://" + l.Addr().String()})
	}
	c := s.cluster("shop", testkit.Other(t))
	s.started()
	s.joined(c, metav1.ConditionTrue, v1alpha1.JoinedReason)
}

// What is installed on a member does not make it a hub.
func TestDefinitions(t *testing.T) {
	all, err := Definitions()
	if err != nil {
		t.Fatal(err)
	}
	var fleet []string
	for _, u := range all {
		if spec, _ := u.Object["spec"].(map[string]any); spec["group"] == v1alpha1.GroupVersion.Group {
			fleet = append(fleet, u.GetName())
		}
	}
	if !slices.Equal(fleet, []string{"clusterassignments.fleet.bowline.dev"}) || len(all) < 5 || all[0].GetKind() != "CustomResourceDefinition" {
		t.Errorf("a member gets %d definitions, of those of the fleet %s", len(all), fleet)
	}
}
