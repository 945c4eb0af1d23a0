package cli_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// What goes wrong in a fleet, with its processes: a hub and agents of the program, on API servers of their own, and a network between
// them. Each test leaves the fleet as it found it, up to the last ones, in which clusters change their places.
func TestFaults(t *testing.T) {
	t.Parallel()
	f := newFleet(t, processes(t))
	f.make(&sourcev1.GitRepository{}, "fleet", `{"spec":{"url":"`+f.repo.URL()+`","interval":"10h","ref":{"branch":"main"}}}`, nil)
	f.push("one")
	f.make(&fleetv1.Placement{}, "apps", `{"spec":{"clusters":{"matchLabels":{"env":"prod"}},"units":[{"name":"app","kustomization":{
		"interval":"10h","prune":true,"path":"./app","sourceRef":{"kind":"GitRepository","name":"fleet"}}}]}}`, nil)
	a, b := f.site("a"), f.site("b")
	for _, s := range []*site{a, b} {
		f.kubeconfig(s.name, s.text())
		f.make(&fleetv1.FleetCluster{}, s.name, `{"spec":{"kubeConfig":{"secretRef":{"name":"`+s.name+`-kubeconfig"}}}}`, map[string]string{"env": "prod"})
		eventually(t, s.name+" is invited", func() (bool, string) {
			err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: fleetv1.MemberNamespace, Name: agent.InvitationName}, &corev1.Secret{})
			return err == nil, f.engine.said.String()
		})
		s.start()
	}
	for _, s := range []*site{a, b} {
		s.has("one")
		f.says(s.name, meta.ReadyCondition, meta.SucceededReason)
	}
	c := &site{} // is started when it is needed
	for _, test := range []struct {
		name string
		run  func(f *fleet, a, b, c *site)
	}{
		{"template", brokenTemplates}, {"agents killed and frozen", killedAndFrozen}, {"hub down", hubDown}, {"network", brokenNetwork},
		{"clock", wrongClocks}, {"selector", emptiedSelector}, {"kubeconfig", brokenKubeconfig}, {"assignment of another", assignmentOfAnother},
		{"rebuilt", rebuilt}, {"one name", oneName}, {"tokens", badTokens},
	} {
		if !t.Run(test.name, func(t *testing.T) {
			here := f.in(t)
			here.with(a, b, c)
			test.run(here, a, b, c)
			f.engine = here.engine
		}) {
			return // what follows rests on it
		}
	}
}

// with has sites belong to the test that runs.
func (f *fleet) with(sites ...*site) {
	for _, s := range sites {
		s.fleet = f
	}
}

// brokenTemplates: parameters of the wrong type and a template that renders nothing make nothing, take nothing away, and say why.
func brokenTemplates(f *fleet, _, _, _ *site) {
	const object = `{"template":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"${cluster.name}"},"data":{"size":"${string(parameters.size)}"}}}`
	of := &fleetv1.ClusterTemplate{}
	f.make(of, "small", `{"spec":{"parameters":{"type":"object","properties":{"size":{"type":"integer","default":1}}},"objects":[`+object+`]}}`, nil)
	cluster := &fleetv1.FleetCluster{}
	f.make(cluster, "built", `{"spec":{"template":{"name":"small","parameters":{"size":"many"}}}}`, nil)
	f.says("built", fleetv1.RenderedCondition, fleetv1.InvalidParametersReason, "spec.template.parameters.size", "ClusterTemplate/fleet/small")
	f.phase("built", fleetv1.PhaseFailing)
	made := &corev1.ConfigMap{}
	if err := f.Get(f.Context(), client.ObjectKeyFromObject(cluster), made); !apierrors.IsNotFound(err) {
		f.Errorf("something was made with wrong parameters: %v", err)
	}
	f.change(cluster, func() { cluster.Spec.Template.Parameters.Raw = []byte(`{"size": 3}`) })
	eventually(f, "made", func() (bool, string) {
		return f.Get(f.Context(), client.ObjectKeyFromObject(cluster), made) == nil && made.Data["size"] == "3", f.engine.said.String()
	})
	f.change(of, func() { of.Spec.Objects[0].When = "false" })
	f.says("built", fleetv1.RenderedCondition, fleetv1.NothingRenderedReason, "ClusterTemplate/fleet/small", "every object is left out")
	f.change(cluster, func() { cluster.Spec.Template.Parameters.Raw = []byte(`{"size": "many"}`) })
	f.says("built", fleetv1.RenderedCondition, fleetv1.InvalidParametersReason)
	now := &corev1.ConfigMap{}
	if err := f.Get(f.Context(), client.ObjectKeyFromObject(cluster), now); err != nil || now.UID != made.UID || now.DeletionTimestamp != nil {
		f.Errorf("what was made is gone: %v, %+v", err, now)
	}
	f.must(f.Delete(f.Context(), cluster))
	eventually(f, "gone", func() (bool, string) {
		return apierrors.IsNotFound(f.Get(f.Context(), client.ObjectKeyFromObject(cluster), cluster)), strings.Join(cluster.Finalizers, " ")
	})
}

// killedAndFrozen: agents that are killed or hang are told with since when, and go on where they were.
func killedAndFrozen(f *fleet, a, b, _ *site) {
	a.agent.kill()
	b.agent.signal(syscall.SIGSTOP)
	for _, s := range []*site{a, b} {
		f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseExpiredReason, "its agent has not renewed its Lease since 20", "look at the Deployment bowline-system/bowline-agent")
		f.phase(s.name, fleetv1.PhaseUnreachable)
		s.loses()
	}
	a.start()
	b.agent.signal(syscall.SIGCONT)
	for _, s := range []*site{a, b} {
		s.has("one")
		f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseRenewedReason)
		f.says(s.name, meta.ReadyCondition, meta.SucceededReason)
	}
}

// hubDown: without the hub's engine and API server members go on, one that is started as well, and report when they are back.
func hubDown(f *fleet, a, b, _ *site) {
	f.engine.kill()
	f.hub.Kill()
	b.heals("one")
	a.agent.kill()
	a.loses()
	a.start()
	a.has("one")
	b.must(b.Client.Create(f.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}}))
	f.hub.Start()
	f.serve()
	eventually(f, "told what happened meanwhile", func() (bool, string) {
		c := f.cluster("b")
		return c.Status.Nodes == 1, f.engine.said.String()
	})
	f.push("two")
	for _, s := range []*site{a, b} {
		s.has("two")
		f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseRenewedReason)
		f.says(s.name, meta.ReadyCondition, meta.SucceededReason)
	}
}

// brokenNetwork: cut for long, silent, and flapping.
func brokenNetwork(f *fleet, a, b, _ *site) {
	for _, broken := range []struct {
		value string
		how   func()
	}{{"three", f.network.Cut}, {"four", f.network.Silence}} {
		before := a.app().Data["value"]
		broken.how()
		f.push(broken.value)
		for _, s := range []*site{a, b} {
			f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseExpiredReason, "its agent has not renewed its Lease since 20")
		}
		a.heals(before)
		b.agent.kill() // one that is started while its hub is away has all that it needs
		b.loses()
		b.start()
		b.has(before)
		f.network.Mend()
		for _, s := range []*site{a, b} {
			s.has(broken.value)
			f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseRenewedReason)
			f.says(s.name, meta.ReadyCondition, meta.SucceededReason)
		}
	}
	for end := time.Now().Add(2 * memberLease); time.Now().Before(end); {
		f.network.Cut()
		<-time.After(100 * time.Millisecond) // the network is away, and there
		f.network.Mend()
		<-time.After(900 * time.Millisecond)
		for _, name := range []string{"a", "b"} {
			if s := f.cluster(name).Status; !apimeta.IsStatusConditionTrue(s.Conditions, fleetv1.ReachableCondition) {
				f.Fatalf("a network that flaps makes %s unreachable: %+v", name, s.Conditions)
			}
		}
	}
}

// wrongClocks: agents whose clocks are five minutes off are as reachable as any, and are missed as soon as any.
func wrongClocks(f *fleet, a, b, _ *site) {
	for s, off := range map[*site]time.Duration{a: 5 * time.Minute, b: -5 * time.Minute} {
		s.agent.kill()
		s.start("--clock-offset", off.String())
		lease := &coordinationv1.Lease{}
		eventually(f, "a Lease of another time", func() (bool, string) {
			f.must(f.Get(f.Context(), client.ObjectKey{Namespace: fleetNS, Name: s.name}, lease))
			wrong := time.Until(lease.Spec.RenewTime.Time) - off
			return wrong.Abs() < time.Minute, lease.Spec.RenewTime.String()
		})
	}
	f.push("five")
	for _, s := range []*site{a, b} {
		s.has("five")
		f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseRenewedReason)
		f.says(s.name, meta.ReadyCondition, meta.SucceededReason)
		s.agent.kill()
	}
	for _, s := range []*site{a, b} {
		_, since, found := strings.Cut(f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseExpiredReason).Message, "its Lease since ")
		since, _, _ = strings.Cut(since, ";")
		at, err := time.Parse(time.RFC3339, since)
		if !found || err != nil || time.Since(at).Abs() > patience {
			f.Errorf("%s is away since %q, by whose clock? %v", s.name, since, err)
		}
		s.start()
		f.says(s.name, fleetv1.ReachableCondition, fleetv1.LeaseRenewedReason)
	}
}

// emptiedSelector: a Placement that suddenly selects nothing waits for approval of exactly its list, and nothing goes meanwhile.
func emptiedSelector(f *fleet, a, b, _ *site) {
	was := map[*site]string{a: string(a.app().UID), b: string(b.app().UID)}
	p := &fleetv1.Placement{ObjectMeta: metav1.ObjectMeta{Namespace: fleetNS, Name: "apps"}}
	f.change(p, func() { p.Spec.Clusters.MatchLabels["env"] = "typo" })
	eventually(f, "held", func() (bool, string) {
		f.must(f.Get(f.Context(), client.ObjectKeyFromObject(p), p))
		ready := apimeta.FindStatusCondition(p.Status.Conditions, meta.ReadyCondition)
		return ready.Reason == fleetv1.AwaitingReason && strings.Contains(ready.Message, "leave 2 of the 2 clusters that it is on: a, b;") &&
			strings.Contains(ready.Message, "bowline approve placement apps -n fleet"), ready.Message
	})
	if shown := f.command("approve", "placement", "apps", "--show"); !strings.Contains(shown, "leave 2 of the 2 clusters that it is on: a, b ") {
		f.Errorf("what is to be approved is shown as %s", shown)
	}
	for _, s := range []*site{a, b} {
		s.heals("five")
		was[s] = string(s.app().UID)
	}
	f.change(p, func() { p.Spec.Clusters.MatchLabels["env"] = "prod" })
	eventually(f, "ready again", func() (bool, string) {
		f.must(f.Get(f.Context(), client.ObjectKeyFromObject(p), p))
		ready := apimeta.FindStatusCondition(p.Status.Conditions, meta.ReadyCondition)
		return ready.Status == metav1.ConditionTrue && p.Status.ReadyClusters == 2, ready.Message
	})
	for s, uid := range was {
		if now := string(s.app().UID); now != uid {
			f.Errorf("on %s the application is %q, and was %q", s.name, now, uid)
		}
	}
}

// brokenKubeconfig: one that stops working is told with what to do; who has joined goes on, and is no less reachable.
func brokenKubeconfig(f *fleet, _, b, _ *site) {
	const token = "a-token-that-nobody-may-see"
	good, at := b.text(), b.instance.Config
	f.kubeconfig("b", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}], "users": [{"name": "u", "user": {"token": %q}}]}`,
		at.Host, base64.StdEncoding.EncodeToString(at.CAData), token))
	refused := f.says("b", fleetv1.ProvisionedCondition, fleetv1.KubeConfigInvalidReason, b.instance.Config.Host, "put in one that is valid")
	if strings.Contains(refused.Message, token) {
		f.Errorf("the token is told: %s", refused.Message)
	}
	f.kubeconfig("b", strings.ReplaceAll(good, b.instance.Config.Host, "https://127.0.0.1:1"))
	f.says("b", fleetv1.ProvisionedCondition, fleetv1.UnreachableReason, "https://127.0.0.1:1 does not answer")
	b.heals("five")
	for _, condition := range []string{fleetv1.JoinedCondition, fleetv1.ReachableCondition} {
		if s := f.cluster("b").Status; !apimeta.IsStatusConditionTrue(s.Conditions, condition) {
			f.Errorf("a kubeconfig that does not work makes %s false: %+v", condition, s.Conditions)
		}
	}
	f.kubeconfig("b", good)
	f.says("b", fleetv1.ProvisionedCondition, fleetv1.ProvisionedReason)
	f.says("b", meta.ReadyCondition, meta.SucceededReason)
}

// credentials are those that an agent keeps on its cluster.
func (s *site) credentials() *join.Credentials {
	s.Helper()
	c, err := join.Store{Client: s.Client}.Load(s.Context())
	s.must(err)
	if c == nil {
		s.Fatalf("%s has no credentials", s.name)
	}
	return c
}

// as speaks to the hub with somebody's credentials.
func (f *fleet) as(c *join.Credentials) client.Client {
	f.Helper()
	s := runtime.NewScheme()
	f.must(clientgoscheme.AddToScheme(s))
	f.must(fleetv1.AddToScheme(s))
	out, err := client.New(c.Config(), client.Options{Scheme: s})
	f.must(err)
	return out
}

// assignmentOfAnother: the certificate of a running agent opens what is its own, and nothing else.
func assignmentOfAnother(f *fleet, a, _, _ *site) {
	agent := f.as(a.credentials())
	at := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: fleetNS, Name: name} }
	f.must(agent.Get(f.Context(), client.ObjectKey{Namespace: fleetNS, Name: "a"}, &fleetv1.ClusterAssignment{}))
	mine, theirs, report := &fleetv1.ClusterAssignment{ObjectMeta: at("a")}, client.ObjectKey{Namespace: fleetNS, Name: "b"}, &fleetv1.ClusterReport{ObjectMeta: at("b")}
	nothing := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"x":"y"}}}`))
	all := client.InNamespace(fleetNS)
	for what, err := range map[string]error{
		"read the assignment of another":    agent.Get(f.Context(), theirs, &fleetv1.ClusterAssignment{}),
		"list all assignments":              agent.List(f.Context(), &fleetv1.ClusterAssignmentList{}, all),
		"change its own assignment":         agent.Patch(f.Context(), mine, nothing),
		"read the report of another":        agent.Get(f.Context(), theirs, &fleetv1.ClusterReport{}),
		"report for another":                agent.Status().Patch(f.Context(), report, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"left":true}}`))),
		"renew the Lease of another":        agent.Patch(f.Context(), &coordinationv1.Lease{ObjectMeta: at("b")}, nothing),
		"read the kubeconfig of another":    agent.Get(f.Context(), client.ObjectKey{Namespace: fleetNS, Name: "b-kubeconfig"}, &corev1.Secret{}),
		"list Secrets":                      agent.List(f.Context(), &corev1.SecretList{}, all),
		"read FleetClusters":                agent.List(f.Context(), &fleetv1.FleetClusterList{}, all),
		"change what is to run everywhere":  agent.Patch(f.Context(), &fleetv1.Placement{ObjectMeta: at("apps")}, nothing),
		"delete the assignment of another":  agent.Delete(f.Context(), &fleetv1.ClusterAssignment{ObjectMeta: at("b")}),
		"delete the FleetCluster of itself": agent.Delete(f.Context(), &fleetv1.FleetCluster{ObjectMeta: at("a")}),
	} {
		if !apierrors.IsForbidden(err) {
			f.Errorf("an agent may %s: %v", what, err)
		}
	}
}

// rebuilt: another cluster in the place of one is for people to decide on; then the certificate of the old one opens nothing, and
// its agent says so and goes on.
func rebuilt(f *fleet, a, _, c *site) {
	*c = *f.site("c")
	before := a.credentials()
	f.kubeconfig("a", c.text())
	a.agent.kill()
	f.says("a", fleetv1.JoinedCondition, fleetv1.IdentityConflictReason, "bowline join a -n fleet --replace")
	invitation := client.ObjectKey{Namespace: fleetv1.MemberNamespace, Name: agent.InvitationName}
	if err := c.Client.Get(f.Context(), invitation, &corev1.Secret{}); !apierrors.IsNotFound(err) {
		f.Errorf("a cluster that may be somebody else's was invited: %v", err)
	}
	f.command("join", "a", "--replace")
	eventually(f, "invited", func() (bool, string) {
		return c.Client.Get(f.Context(), invitation, &corev1.Secret{}) == nil, f.engine.said.String()
	})
	old := f.as(before)
	own := client.ObjectKey{Namespace: fleetNS, Name: "a"}
	if err := old.Get(f.Context(), own, &fleetv1.ClusterAssignment{}); !apierrors.IsForbidden(err) {
		f.Errorf("the certificate of a cluster that was let go of has rights: %v", err)
	}
	c.start()
	c.has("five")
	f.says("a", fleetv1.JoinedCondition, fleetv1.JoinedReason)
	f.says("a", meta.ReadyCondition, meta.SucceededReason)
	if err := old.Get(f.Context(), own, &fleetv1.ClusterAssignment{}); !apierrors.IsForbidden(err) {
		f.Errorf("the certificate of the old cluster passes for the new one: %v", err)
	}
	if _, err := join.Renew(f.Context(), before); err == nil {
		f.Error("the certificate of the old cluster can be renewed")
	}
	a.start().says("it does not know this agent, or not any more")
	a.agent.says("to join again: bowline join a -n fleet")
	a.heals("five")
}

// invite makes an invitation as a file.
func (f *fleet) invite(name string) string {
	f.Helper()
	endpoint, err := join.EndpointOf(f.hub.Config)
	f.must(err)
	i, _, err := join.Invite(f.Context(), f.Client, f.cluster(name), endpoint)
	f.must(err)
	data, err := i.Kubeconfig()
	f.must(err)
	file := filepath.Join(f.TempDir(), "invitation")
	f.must(os.WriteFile(file, data, 0o600))
	return file
}

// oneName: of two clusters that claim one name the second is refused and told why, and stays what it was.
func oneName(f *fleet, a, b, _ *site) {
	f.make(&fleetv1.FleetCluster{}, "field", `{"spec":{"join":{}}}`, nil)
	f.says("field", fleetv1.JoinedCondition, fleetv1.AwaitingJoinReason, "bowline join field -n fleet")
	a.agent.kill()
	a.start("--invitation", f.invite("field"))
	f.says("field", fleetv1.JoinedCondition, fleetv1.JoinedReason)
	eventually(f, "in the hands of the agent", func() (bool, string) {
		who := a.credentials()
		return who.Name == "field", who.Name
	})
	b.agent.kill()
	b.start("--invitation", f.invite("field")).says("bowline join field -n fleet --replace")
	b.agent.says("the cluster stays what it was in the fleet")
	f.says("field", fleetv1.JoinedCondition, fleetv1.IdentityConflictReason, "bowline join field -n fleet --replace")
	if s := f.cluster("field").Status; s.ClusterID != string(a.credentials().Member) {
		f.Errorf("the first one has lost its place to %s", s.ClusterID)
	}
	b.heals("five")
	f.says("b", meta.ReadyCondition, meta.SucceededReason)
	f.must(f.as(a.credentials()).Get(f.Context(), client.ObjectKey{Namespace: fleetNS, Name: "field"}, &fleetv1.ClusterAssignment{}))
}

// badTokens: with an invitation that was used, one that was replaced, and one whose token is forged nobody joins.
func badTokens(f *fleet, a, _, _ *site) {
	f.make(&fleetv1.FleetCluster{}, "late", `{"spec":{"join":{}}}`, nil)
	a.agent.kill()
	f.must(join.Store{Client: a.Client}.Forget(f.Context()))
	replaced := f.invite("late")
	good := f.invite("late")
	text, err := os.ReadFile(good)
	f.must(err)
	forged := filepath.Join(f.TempDir(), "forged")
	head, signature, found := strings.Cut(string(text), "token: ")
	if !found {
		f.Fatal("an invitation has no token")
	}
	token, tail, _ := strings.Cut(signature, "\n")
	end := token[strings.LastIndex(token, ".")+1:]
	f.must(os.WriteFile(forged, []byte(head+"token: "+strings.TrimSuffix(token, end)+strings.Repeat("A", len(end))+"\n"+tail), 0o600))
	for name, file := range map[string]string{"replaced": replaced, "forged": forged} {
		a.start("--invitation", file).fails("the hub does not accept who is asking", "bowline join late -n fleet")
		if strings.Contains(a.agent.said.String(), end) {
			f.Errorf("what a %s invitation holds is told:\n%s", name, &a.agent.said)
		}
	}
	if s := f.cluster("late").Status; s.Incarnation != "" {
		f.Errorf("somebody has joined: %+v", s)
	}
	a.start("--invitation", good)
	f.says("late", fleetv1.JoinedCondition, fleetv1.JoinedReason)
	a.agent.says("joined the fleet")
	a.agent.kill()
	f.must(join.Store{Client: a.Client}.Forget(f.Context()))
	was := f.cluster("late").Status.Incarnation
	a.start("--invitation", good).fails("the invitation was used", "bowline join late -n fleet")
	if now := f.cluster("late").Status.Incarnation; now != was {
		f.Errorf("an invitation that was used made %s of %s", now, was)
	}
	if a.app().Data["value"] == "" {
		f.Error("nobody asked for it, and the application is gone")
	}
}
