package pivot

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

func fleetCluster(name string, change ...func(*v1alpha1.FleetCluster)) v1alpha1.FleetCluster {
	c := v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: name}}
	c.Spec.Template = &v1alpha1.TemplateReference{Name: "local"}
	for _, kind := range []string{"Ready", v1alpha1.ProvisionedCondition} {
		c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue})
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func falsely(kind, message string) func(*v1alpha1.FleetCluster) {
	return func(c *v1alpha1.FleetCluster) {
		for i := range c.Status.Conditions {
			if c.Status.Conditions[i].Type == kind {
				c.Status.Conditions[i].Status, c.Status.Conditions[i].Message = metav1.ConditionFalse, message
			}
		}
	}
}

func deleting(c *v1alpha1.FleetCluster) { c.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }

func parsed(t *testing.T, text string) unstructured.Unstructured {
	t.Helper()
	u := unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

const capiCluster = `
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: hub, namespace: fleet}
status: {conditions: [{type: ControlPlaneInitialized, status: "True"}]}
`

func TestObstacles(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		change       func(*facts)
		want         []string
	}{
		{"nothing", "all is as it should be", func(*facts) {}, nil},
		{"not ready", "a hub that is not well cannot look after others", func(f *facts) {
			f.clusters[0] = fleetCluster("hub", falsely("Ready", "1 of 2 units failed"))
		}, []string{"FleetCluster/fleet/hub: it is not ready: 1 of 2 units failed; a hub has to be: see to the cause"}},
		{"another is not ready", "it can be so on the other hub as well", func(f *facts) {
			f.clusters = append(f.clusters, fleetCluster("other", falsely("Ready", "1 of 2 units failed")))
		}, nil},
		{"push", "its engine would have to run before it is there", func(f *facts) { f.clusters[0].Spec.Agent.Mode = v1alpha1.AgentPush },
			[]string{"FleetCluster/fleet/hub: its engine runs on the hub that is left; give it an engine of its own: spec.agent.mode: Pull"}},
		{"suspended", "what is suspended takes no invitation", func(f *facts) { f.clusters[0].Spec.Suspend = true },
			[]string{"FleetCluster/fleet/hub: it is suspended; end that: spec.suspend: false"}},
		{"being deleted", "whatever was begun is finished where it was begun", func(f *facts) {
			f.clusters = append(f.clusters, fleetCluster("other", deleting))
		}, []string{"FleetCluster/fleet/other: it is being deleted; wait until it is gone"}},
		{"being built", "half a cluster cannot move", func(f *facts) {
			f.clusters = append(f.clusters, fleetCluster("other", falsely(v1alpha1.ProvisionedCondition, "")))
		}, []string{"FleetCluster/fleet/other: it is being built; wait until its control plane is there, or remove it"}},
		{"a member", "a hub above would assign to what is left", func(f *facts) { f.member = true },
			[]string{"the hub: it is the member of another hub, whose assignments it carries out; take it out of that fleet first: bowline leave"}},
		{"itself", "there is nowhere to go", func(f *facts) { f.to = f.from },
			[]string{"FleetCluster/fleet/hub: it is the hub already; name another cluster"}},
		{"kinds", "each is told once", func(f *facts) {
			f.unserved = []string{"Machine cluster.x-k8s.io/v1beta2", "Machine cluster.x-k8s.io/v1beta2"}
		},
			[]string{"Machine cluster.x-k8s.io/v1beta2: the target does not serve this version of the kind; install Cluster API and the providers of the hub there, in the same versions: clusterctl init"}},
		{"taken", "nobody's object is written over", func(f *facts) { f.taken = []string{"Secret/fleet/key"} },
			[]string{"Secret/fleet/key: the target has one of this name already; remove or rename one of the two; what both are to have can go into a Placement"}},
		{"a unit and a Placement's", "Git says both, and they would be written by turns", func(f *facts) { f.placed = []string{"Kustomization/fleet/addons"} },
			[]string{"Kustomization/fleet/addons: a Placement gives the target a unit of this name, so that two would deliver it there; take the hub's own out of Git: "}},
		{"two units", "one line for two units, whatever they share", func(f *facts) {
			f.both = []shared{{"a_x__ConfigMap", "fleet/addons", "fleet/placed"}, {"a_y__ConfigMap", "fleet/addons", "fleet/placed"}}
		}, []string{"Kustomization/fleet/addons: it delivers a_x__ConfigMap on the hub, which Kustomization/fleet/placed delivers on the target; take it out of one of the two"}},
		{"nobody", "what has no FleetCluster is no member", func(f *facts) { f.cluster.Name = "nobody" },
			[]string{"FleetCluster/fleet/nobody: there is none of this name; name one of the fleet: bowline get clusters -A"}},
		{"another cluster", "a kubeconfig can be the wrong one", func(f *facts) { f.clusters[0].Status.ClusterID = "c" },
			[]string{"FleetCluster/fleet/hub: it is the cluster c, and its kubeconfig reaches the cluster b; name the right one with --to-kubeconfig"}},
		{"an older provider", "it may not know what the newer one wrote", func(f *facts) {
			f.hub.listed, f.target.listed = map[string]string{"cluster-api": "v1.13.6"}, map[string]string{"cluster-api": "v1.13.5"}
			f.hub.running, f.target.running = f.hub.listed, f.target.listed
		}, []string{"provider cluster-api of Cluster API: the hub has v1.13.6, and the target v1.13.5, which is older; bring the target to what the hub has first: clusterctl upgrade apply"}},
		{"a newer provider", "Cluster API allows it", func(f *facts) {
			f.hub.listed, f.target.listed = map[string]string{"infrastructure-aws": "v2.9.0"}, map[string]string{"infrastructure-aws": "v2.10.0"}
			f.hub.running, f.target.running = map[string]string{"x": "v1.0.0-rc.1", "y": "", "z": "v1.0.0"}, map[string]string{"x": "v1.0.0", "y": "v1.0.0", "z": ""}
		}, nil},
		{"an older image", "an inventory is kept by clusterctl alone", func(f *facts) {
			f.hub.running, f.target.running = map[string]string{"bootstrap-kubeadm": "v1.10.0"}, map[string]string{"bootstrap-kubeadm": "v1.9.0"}
		}, []string{"provider bootstrap-kubeadm of Cluster API: the hub has v1.10.0, and the target v1.9.0, which is older; "}},
		{"a provider that is not there", "nobody would look after what moved", func(f *facts) {
			f.hub.running = map[string]string{"infrastructure-aws": "v2.9.0"}
		}, []string{"provider infrastructure-aws of Cluster API: the hub has v2.9.0, and the target has not got it; install Cluster API and the providers of the hub there, in the same versions: clusterctl init"}},
		{"a provider that is not listed", "Cluster API's move asks the inventory alone", func(f *facts) {
			f.hub.listed, f.target.running = map[string]string{"infrastructure-aws": "v2.9.0"}, map[string]string{"infrastructure-aws": "v2.9.0"}
		}, []string{"provider infrastructure-aws of Cluster API: the hub has v2.9.0, and the target, which runs v2.9.0, does not list it among its providers; install "}},
		{"no version", "Cluster API's move fails with it", func(f *facts) {
			f.hub.listed, f.target.listed = map[string]string{"a": "v1", "b": "v1.0.0"}, map[string]string{"a": "v1.0.0", "b": "new"}
		}, []string{`provider a of Cluster API: the hub has "v1", which is no version; correct its Provider: kubectl get providers -A`,
			`provider b of Cluster API: the hub has v1.0.0, and the target "new", which is no version; correct its Provider: kubectl get providers -A`}},
		{"another contract", "kinds are stored and converted otherwise", func(f *facts) { f.hub.contract, f.target.contract = "v1beta2", "v1beta1" },
			[]string{"Cluster API: the hub has its contract v1beta2, and the target v1beta1; bring the target to what the hub has first: clusterctl upgrade apply"}},
		{"the hub's contract", "nothing would move", func(f *facts) { f.hub.contract, f.target.contract = "v1beta1", "v1beta2" },
			[]string{"Cluster API: the hub has its contract v1beta1, and only v1beta2 can be moved; bring the hub to a release with that contract: clusterctl upgrade apply"}},
		{"a provider's contract", "nobody looks at a kind that does not follow it", func(f *facts) {
			f.contracts = []contracts{{"a", []string{"v1beta2", "v1beta1"}, []string{"v1beta1"}}, {"b", []string{"v1beta1"}, []string{"v1beta2", "v1beta1"}}, {"c", nil, nil}, {"d", []string{"v1beta1"}, nil}}
		}, []string{"CustomResourceDefinition/a: on the hub it follows the contract v1beta2 of Cluster API, and on the target v1beta1; bring the target",
			"CustomResourceDefinition/d: on the hub it follows the contract v1beta1 of Cluster API, and on the target none; bring the target"}},
		{"without the label", "its objects would be left behind", func(f *facts) { f.unlabelled = []string{"clusters.cluster.x-k8s.io"} },
			[]string{"CustomResourceDefinition/clusters.cluster.x-k8s.io: Cluster API's move passes over kinds without the label clusterctl.cluster.x-k8s.io; " +
				"label it: kubectl label crd clusters.cluster.x-k8s.io clusterctl.cluster.x-k8s.io="}},
		{"paused", "who paused it does not want it moved", func(f *facts) {
			f.capi = append(f.capi, parsed(t, strings.Replace(capiCluster, "status:", "spec: {paused: true}\nstatus:", 1)))
		}, []string{"Cluster/fleet/hub: it is paused; let it go on, or remove it"}},
		{"not initialized", "Cluster API refuses it", func(f *facts) {
			f.capi = append(f.capi, parsed(t, strings.Replace(capiCluster, `"True"`, `"False"`, 1)))
		}, []string{"Cluster/fleet/hub: its control plane is not initialized; wait until it is, or remove it"}},
		{"no node", "Cluster API refuses it", func(f *facts) {
			f.capi = append(f.capi, parsed(t, "{apiVersion: cluster.x-k8s.io/v1beta2, kind: Machine, metadata: {name: m, namespace: fleet}}"))
		}, []string{"Machine/fleet/m: it has no node yet; wait until it has"}},
		{"local members", "they end with their machine", func(f *facts) {
			f.capi = append(f.capi, parsed(t, "{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: LocalControlPlane, metadata: {name: c, namespace: fleet}}"))
		}, []string{"LocalControlPlane/fleet/c: it runs on the machine of the hub that is left, and ends with it; move such planes with a plane of this machine, or remove the cluster first"}},
		{"a hub of its own", "two providers would look after the same", func(f *facts) {
			f.local = true
			f.capi = append(f.capi, parsed(t, "{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: LocalControlPlane, metadata: {name: hub, namespace: fleet}, spec: {management: true}}"))
		}, []string{"LocalControlPlane/fleet/hub: it has Cluster API and a provider of its own already, and two would look after the same clusters; move into a cluster that makes none, or end it for this one: management: false, "}},
		{"all at once", "people want to know everything before they begin", func(f *facts) {
			f.member, f.taken = true, []string{"Secret/fleet/a", "Secret/fleet/b"}
		}, []string{"Secret/fleet/a: ", "Secret/fleet/b: ", "the hub: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &facts{cluster: types.NamespacedName{Namespace: "fleet", Name: "hub"}, from: "a", to: "b",
				clusters: []v1alpha1.FleetCluster{fleetCluster("hub")}, capi: []unstructured.Unstructured{parsed(t, capiCluster)}}
			tc.change(f)
			got := f.obstacles()
			if len(got) != len(tc.want) {
				t.Fatalf("%s: %v", tc.reason, got)
			}
			for i, o := range got {
				if !strings.HasPrefix(o.String(), tc.want[i]) {
					t.Errorf("%s: %q, want %q", tc.reason, o, tc.want[i])
				}
			}
		})
	}
}

func TestMoves(t *testing.T) {
	clusters := map[types.NamespacedName]bool{{Namespace: "fleet", Name: "hub"}: true}
	for _, tc := range []struct {
		name, reason, object string
		want                 bool
	}{
		{"a secret", "sources need it", "{kind: Secret, metadata: {name: git}}", true},
		{"of a Cluster", "Cluster API takes it along", "{kind: Secret, metadata: {name: hub-ca, namespace: fleet}}", false},
		{"a kubeconfig of people", "there is no Cluster of that name", "{kind: Secret, metadata: {name: edge-kubeconfig, namespace: fleet}}", true},
		{"owned", "its owner makes it again", "{kind: Secret, metadata: {name: x, ownerReferences: [{name: y}]}}", false},
		{"a token", "it is one of the hub that is left", "{kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: x}}", false},
		{"an invitation", "who was invited by the one hub is nobody to the other", "{kind: Secret, metadata: {name: x, labels: {fleet.bowline.dev/identity: invitation}}}", false},
		{"a root", "each cluster has its own", "{kind: ConfigMap, metadata: {name: kube-root-ca.crt}}", false},
		{"a unit", "its inventory is what pruning goes by", "{kind: Kustomization, metadata: {name: fleet}}", true},
		{"a unit of a cluster", "the hub makes it again, and it takes over what has moved", "{kind: Kustomization, metadata: {name: cluster-hub, labels: {fleet.bowline.dev/made-by: cluster.hub}}}", false},
		{"an assignment", "members stay as they are while the new hub knows nothing", "{kind: ClusterAssignment, metadata: {name: x, ownerReferences: [{name: x}]}}", true},
		{"a copy of one", "that is the member's side", "{kind: ClusterAssignment, metadata: {name: x, labels: {fleet.bowline.dev/self: \"true\"}}}", false},
		{"a release in Git", "its unit makes it", "{kind: HelmRelease, metadata: {name: x, labels: {kustomize.toolkit.fluxcd.io/name: fleet}}}", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := parsed(t, tc.object)
			for _, k := range carriedKinds() {
				if k.Kind == u.GetKind() {
					if got := k.moves(&u, clusters); got != tc.want {
						t.Errorf("%s: %t", tc.reason, got)
					}
					return
				}
			}
			t.Fatalf("%s is no kind that moves", u.GetKind())
		})
	}
}
