package pivot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/object"
)

// Plan is what a pivot would do.
type Plan struct {
	// Namespaces are those whose objects move.
	Namespaces []string
	// Carry are our own objects, in the order in which they are copied, and Moves those of Cluster API, by kind and name.
	Carry []Item
	Moves []string
	// Joins are the FleetClusters that have to be invited by hand, because the hub has no way to them.
	Joins []types.NamespacedName
	// Stays are the rights of service accounts of those namespaces that hold for a whole cluster, and do not move: whoever gave them gives them again.
	Stays []string
	// Obstacles is all that is in the way.
	Obstacles []Obstacle
}

// Survey reads both sides, changes nothing, and says what would move and what is in the way.
func (o Options) Survey(ctx context.Context) (*Plan, error) {
	clusters := &v1alpha1.FleetClusterList{}
	err := o.From.Client.List(ctx, clusters)
	if err != nil {
		return nil, wrap(err, "list FleetClusters")
	}
	p := &Plan{Namespaces: namespacesOf(clusters.Items), Joins: o.joins(clusters.Items)}
	f := facts{cluster: o.Cluster, from: o.From.ID, to: o.To.ID, local: o.Local, clusters: clusters.Items}
	if f.member, err = isMember(ctx, o.From); err != nil {
		return nil, err
	}
	if err := o.surveyClusterAPI(ctx, p, &f); err != nil {
		return nil, err
	}
	if err := o.surveyOwn(ctx, p, &f); err != nil {
		return nil, err
	}
	if err := o.surveyUnits(ctx, p, &f); err != nil {
		return nil, err
	}
	if err := o.surveyRights(ctx, p); err != nil {
		return nil, err
	}
	p.Obstacles = f.obstacles()
	return p, nil
}

// fleets returns the namespaces whose objects move: those with FleetClusters, and the engine's own.
func fleets(ctx context.Context, s Side) ([]string, error) {
	all := &v1alpha1.FleetClusterList{}
	if err := s.Client.List(ctx, all); err != nil {
		return nil, wrap(err, "list FleetClusters")
	}
	return namespacesOf(all.Items), nil
}

func namespacesOf(clusters []v1alpha1.FleetCluster) []string {
	names := []string{v1alpha1.MemberNamespace}
	for i := range clusters {
		names = append(names, clusters[i].Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// isMember reports whether a cluster has a hub.
func isMember(ctx context.Context, s Side) (bool, error) {
	has, err := join.Store{Client: s.Client}.Load(ctx)
	return has != nil, err
}

// surveyClusterAPI reads what Cluster API's own code is going to move, and whether the target has what it needs.
func (o Options) surveyClusterAPI(ctx context.Context, p *Plan, f *facts) (err error) {
	if f.hub, err = surveyInstalled(ctx, o.From); err != nil {
		return err
	}
	if f.target, err = surveyInstalled(ctx, o.To); err != nil {
		return err
	}
	definitions := &metav1.PartialObjectMetadataList{}
	definitions.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinitionList"))
	if err := o.From.Client.List(ctx, definitions); err != nil {
		return wrap(err, "list the definitions of the hub")
	}
	for i := range definitions.Items {
		m := &definitions.Items[i]
		if _, labelled := m.Labels[clusterctlv1.ClusterctlLabel]; !labelled && !clusterAPIs(m.Name) {
			continue
		}
		if err := o.surveyKind(ctx, p, f, m.Name); err != nil {
			return err
		}
	}
	slices.Sort(p.Moves)
	return nil
}

// clusterAPIs reports whether a definition of that name is one of Cluster API or a provider, and not of what installs them.
func clusterAPIs(name string) bool {
	_, group, _ := strings.Cut(name, ".")
	return group == clusterv1.GroupVersion.Group ||
		strings.HasSuffix(group, "."+clusterv1.GroupVersion.Group) && group != clusterctlv1.GroupVersion.Group && !strings.HasPrefix(group, "operator.")
}

// surveyKind reads the objects of one of Cluster API's kinds.
func (o Options) surveyKind(ctx context.Context, p *Plan, f *facts, name string) error {
	d, err := definition(ctx, o.From, name)
	if err != nil || d == nil || d.Spec.Scope != apiextensionsv1.NamespaceScoped {
		return err
	}
	all := &unstructured.UnstructuredList{}
	all.SetAPIVersion(d.Spec.Group + "/" + stored(d))
	all.SetKind(d.Spec.Names.Kind)
	if err := o.From.Client.List(ctx, all); err != nil {
		return wrap(err, "list %ss", d.Spec.Names.Kind)
	}
	some := false
	_, labelled := d.Labels[clusterctlv1.ClusterctlLabel]
	for j := range all.Items {
		if u := &all.Items[j]; slices.Contains(p.Namespaces, u.GetNamespace()) {
			some = true
			p.Moves = append(p.Moves, object.IDOf(u).String())
			f.capi = append(f.capi, *u)
		}
	}
	if some && !labelled {
		f.unlabelled = append(f.unlabelled, name)
	}
	if !some || o.Ready != nil {
		return nil // nothing needs it, or it is brought
	}
	there, err := definition(ctx, o.To, name)
	switch {
	case err != nil:
		return err
	case there == nil, !serves(there, stored(d)):
		f.unserved = append(f.unserved, d.Spec.Names.Kind+" "+all.GetAPIVersion())
	default:
		f.contracts = append(f.contracts, contracts{name, contractsOf(d), contractsOf(there)})
	}
	return nil
}

// surveyOwn reads our own objects, and those of their names on the target.
func (o Options) surveyOwn(ctx context.Context, p *Plan, f *facts) error {
	of := map[types.NamespacedName]bool{}
	for i := range f.capi {
		if f.capi[i].GetKind() == clusterv1.ClusterKind {
			of[client.ObjectKeyFromObject(&f.capi[i])] = true
		}
	}
	for _, k := range carriedKinds() {
		for _, namespace := range p.Namespaces {
			all, err := k.list(ctx, o.From, namespace)
			if err != nil {
				return err
			}
			for i := range all {
				if !k.moves(&all[i], of) {
					continue
				}
				if err := o.surveyOne(ctx, p, f, k, &all[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (o Options) surveyOne(ctx context.Context, p *Plan, f *facts, k carried, u *unstructured.Unstructured) error {
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(u.GroupVersionKind())
	err := o.To.Client.Get(ctx, client.ObjectKeyFromObject(u), now)
	switch {
	case apimeta.IsNoMatchError(err):
		f.unserved = append(f.unserved, u.GetKind()+" "+u.GetAPIVersion())
		return nil
	case apierrors.IsNotFound(err), err == nil && now.GetAnnotations()[carriedFrom] == string(o.From.ID):
		p.Carry = append(p.Carry, Item{Object: u, status: k.status})
		return nil
	case err != nil:
		return wrap(err, "look for %s on the target", object.IDOf(u))
	case k.plain && same(u, now), k.Group == sourceGroup && assigned(now):
		return nil // it is there already, or taken over when nothing follows it any more
	case k.Kind == v1alpha1.ClusterAssignmentKind && client.ObjectKeyFromObject(u) == o.Cluster && now.GetLabels()[v1alpha1.LabelSelf] != "":
		return nil
	case k.Kind == kustomizev1.KustomizationKind && now.GetLabels()[v1alpha1.LabelMadeBy] == v1alpha1.MadeByAssignment:
		f.placed = append(f.placed, object.IDOf(u).String())
		return nil
	}
	f.taken = append(f.taken, object.IDOf(u).String())
	return nil
}

// surveyUnits finds what units of the hub and of the target would both deliver, once they are on one cluster.
func (o Options) surveyUnits(ctx context.Context, p *Plan, f *facts) error {
	theirs, err := inventories(ctx, o.To)
	if err != nil {
		return err
	}
	for i := range p.Carry {
		u := p.Carry[i].Object
		if u.GetKind() != kustomizev1.KustomizationKind || assignedUnit(u) {
			continue
		}
		unit := u.GetNamespace() + "/" + u.GetName()
		for _, id := range entries(u) {
			if other, both := theirs[id]; both && other != unit {
				f.both = append(f.both, shared{id: id, hub: unit, target: other})
			}
		}
	}
	return nil
}

func assignedUnit(u *unstructured.Unstructured) bool {
	return u.GetLabels()[v1alpha1.LabelMadeBy] != ""
}

// inventories says of the objects that units of a cluster deliver which unit it is. What many deliver, and nobody prunes, is left out.
func inventories(ctx context.Context, s Side) (map[string]string, error) {
	all := &unstructured.UnstructuredList{}
	all.SetAPIVersion(kustomizev1.GroupVersion.String())
	all.SetKind(kustomizev1.KustomizationKind)
	if err := s.Client.List(ctx, all); err != nil {
		return nil, wrap(err, "list the Kustomizations of the target")
	}
	out := map[string]string{}
	for i := range all.Items {
		u := &all.Items[i]
		for _, id := range entries(u) {
			if !strings.HasSuffix(id, "_Namespace") && !strings.Contains(id, "_"+sourceGroup+"_") {
				out[id] = u.GetNamespace() + "/" + u.GetName()
			}
		}
	}
	return out, nil
}

// entries are the objects of a unit's inventory.
func entries(u *unstructured.Unstructured) []string {
	var k kustomizev1.Kustomization
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &k); err != nil || k.Status.Inventory == nil {
		return nil
	}
	out := make([]string, 0, len(k.Status.Inventory.Entries))
	for _, e := range k.Status.Inventory.Entries {
		out = append(out, e.ID)
	}
	return out
}

// Counts says how many of each kind move, sorted by kind.
func (p *Plan) Counts() []string {
	count := map[string]int{}
	for _, id := range p.Moves {
		kind, _, _ := strings.Cut(id, "/")
		count[kind]++
	}
	for _, item := range p.Carry {
		count[item.Object.GetKind()]++
	}
	out := make([]string, 0, len(count))
	for kind, n := range count {
		out = append(out, fmt.Sprintf("%s: %d", kind, n))
	}
	slices.Sort(out)
	return out
}

func conditionOf(u *unstructured.Unstructured, kind string) metav1.ConditionStatus {
	all, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range all {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			s, _ := m["status"].(string)
			return metav1.ConditionStatus(s)
		}
	}
	return metav1.ConditionUnknown
}
