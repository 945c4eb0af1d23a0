package pivot

import (
	"cmp"
	"fmt"
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/object"
)

// Obstacle is one thing that is in the way of a pivot.
type Obstacle struct {
	// Object is what it is about, Why what is wrong with it, and Remedy what to do.
	Object, Why, Remedy string
}

// String is a line for people.
func (o Obstacle) String() string { return o.Object + ": " + o.Why + "; " + o.Remedy }

// facts is all that a pivot is judged by.
type facts struct {
	cluster  types.NamespacedName
	from, to types.UID
	// member says that the hub is the member of another one, and local that clusters of this machine can move.
	member, local bool
	clusters      []v1alpha1.FleetCluster
	// capi are Cluster API's objects.
	capi []unstructured.Unstructured
	// hub and target are what the two have of Cluster API, and contracts what its kinds follow there.
	hub, target installed
	contracts   []contracts
	// unlabelled are definitions of Cluster API's kinds whose objects its move would not see.
	unlabelled []string
	// unserved are kinds that the target does not serve, and taken objects that it has of the same names.
	unserved, taken []string
	// placed are units of the hub's own whose names a Placement gives to units of the target.
	placed []string
	both   []shared
}

// shared is an object that two units would deliver.
type shared struct{ id, hub, target string }

// obstacles says all that is in the way.
func (f *facts) obstacles() []Obstacle {
	var all []Obstacle
	add := func(object, why, remedy string) { all = append(all, Obstacle{object, why, remedy}) }
	if f.from == f.to { // and all else is about two clusters
		add("FleetCluster/"+f.cluster.String(), "it is the hub already", "name another cluster")
		return all
	}
	if f.member {
		add("the hub", "it is the member of another hub, whose assignments it carries out", "take it out of that fleet first: bowline leave")
	}
	f.ofClusters(add)
	f.ofVersions(add)
	for i := range f.capi {
		f.ofClusterAPI(&f.capi[i], add)
	}
	slices.Sort(f.unserved)
	for _, kind := range slices.Compact(f.unserved) {
		add(kind, "the target does not serve this version of the kind", installTarget)
	}
	for _, id := range f.taken {
		add(id, "the target has one of this name already", "remove or rename one of the two; what both are to have can go into a Placement")
	}
	for _, id := range f.placed {
		add(id, "a Placement gives the target a unit of this name, so that two would deliver it there", "take the hub's own out of Git: the target keeps the other one, and what it delivers")
	}
	told := map[[2]string]bool{}
	for _, s := range f.both {
		if units := [2]string{s.hub, s.target}; !told[units] {
			told[units] = true
			add("Kustomization/"+s.hub, fmt.Sprintf("it delivers %s on the hub, which Kustomization/%s delivers on the target", s.id, s.target), "take it out of one of the two")
		}
	}
	slices.SortStableFunc(all, func(a, b Obstacle) int { return cmp.Compare(a.Object, b.Object) })
	return all
}

func (f *facts) ofClusters(add func(object, why, remedy string)) {
	if !slices.ContainsFunc(f.clusters, func(c v1alpha1.FleetCluster) bool { return client.ObjectKeyFromObject(&c) == f.cluster }) {
		add("FleetCluster/"+f.cluster.String(), "there is none of this name", "name one of the fleet: bowline get clusters -A")
	}
	for i := range f.clusters {
		c := &f.clusters[i]
		name := "FleetCluster/" + c.Namespace + "/" + c.Name
		ready := apimeta.FindStatusCondition(c.Status.Conditions, "Ready")
		isReady := apimeta.IsStatusConditionTrue(c.Status.Conditions, "Ready")
		target := client.ObjectKeyFromObject(c) == f.cluster
		switch {
		case !c.DeletionTimestamp.IsZero():
			add(name, "it is being deleted", "wait until it is gone")
		case target && !isReady:
			why := "it is not ready"
			if ready != nil {
				why += ": " + ready.Message
			}
			add(name, why, "a hub has to be: see to the cause")
		case c.Spec.Template != nil && !apimeta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ProvisionedCondition):
			add(name, "it is being built", "wait until its control plane is there, or remove it")
		}
		switch {
		case target && c.Status.ClusterID != "" && c.Status.ClusterID != string(f.to):
			add(name, fmt.Sprintf("it is the cluster %s, and its kubeconfig reaches the cluster %s", c.Status.ClusterID, f.to), "name the right one with --to-kubeconfig")
		case target && c.Spec.Agent.Mode == v1alpha1.AgentPush:
			add(name, "its engine runs on the hub that is left", "give it an engine of its own: spec.agent.mode: Pull")
		case target && c.Spec.Suspend:
			add(name, "it is suspended", "end that: spec.suspend: false")
		}
	}
}

// ofClusterAPI says what Cluster API's own code would refuse, and what it would only find out in the midst of it.
func (f *facts) ofClusterAPI(u *unstructured.Unstructured, add func(object, why, remedy string)) {
	id := object.IDOf(u).String()
	group := u.GroupVersionKind().Group
	if u.GetDeletionTimestamp() != nil {
		add(id, "it is being deleted", "wait until it is gone")
		return
	}
	if group == localv1.GroupVersion.Group && !f.local && u.GetKind() == localv1.LocalControlPlaneKind {
		add(id, "it runs on the machine of the hub that is left, and ends with it", "move such planes with a plane of this machine, or remove the cluster first")
	}
	if own, _, _ := unstructured.NestedBool(u.Object, "spec", "management"); own && u.GetKind() == localv1.LocalControlPlaneKind && client.ObjectKeyFromObject(u) == f.cluster {
		add(id, "it has Cluster API and a provider of its own already, and two would look after the same clusters",
			"move into a cluster that makes none, or end it for this one: management: false, in the parameters of its FleetCluster")
	}
	_, paused := u.GetAnnotations()[clusterv1.PausedAnnotation]
	if spec, _, _ := unstructured.NestedBool(u.Object, "spec", "paused"); spec && u.GetKind() == clusterv1.ClusterKind {
		paused = true
	}
	if paused && group == clusterv1.GroupVersion.Group {
		add(id, "it is paused", "let it go on, or remove it")
	}
	switch {
	case group != clusterv1.GroupVersion.Group:
	case u.GetKind() == clusterv1.ClusterKind && conditionOf(u, clusterv1.ClusterControlPlaneInitializedCondition) != "True":
		add(id, "its control plane is not initialized", "wait until it is, or remove it")
	case u.GetKind() == "Machine":
		if node, _, _ := unstructured.NestedString(u.Object, "status", "nodeRef", "name"); node == "" {
			add(id, "it has no node yet", "wait until it has")
		}
	}
}
