package pivot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/cluster-api/util/secret"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// carriedFrom is the annotation on what was copied: the cluster that it is from.
const carriedFrom = "fleet.bowline.dev/carried-from"

// carried is a kind of our own objects that move, and what of it does not.
type carried struct {
	schema.GroupKind
	// status says that what was is worth keeping: inventories, without which nothing could be pruned any more.
	status bool
	// plain kinds say the same whoever wrote them: one that is there already, and is the same, is as good.
	plain bool
	// stays says that an object is made again, or is about the cluster that is left.
	stays func(*unstructured.Unstructured) bool
}

// carriedKinds are all, in the order in which they are made. What is not among them is made again by who made it: artifacts, reports, Leases, rights of
// agents, inventories of clusters, and the units that clusters are made by, which take over what they find.
func carriedKinds() []carried {
	toolkit := func(group, kind string) schema.GroupKind {
		return schema.GroupKind{Group: group + ".toolkit.fluxcd.io", Kind: kind}
	}
	fleet := func(kind string) schema.GroupKind {
		return schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: kind}
	}
	core := func(kind string) schema.GroupKind { return schema.GroupKind{Kind: kind} }
	rbac := func(kind string) schema.GroupKind {
		return schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: kind}
	}
	return []carried{
		{core("ServiceAccount"), false, true, named("default", "bowline-agent")},
		{rbac("Role"), false, true, nil},
		{rbac("RoleBinding"), false, true, nil},
		{core("Secret"), false, true, secretStays},
		{core("ConfigMap"), false, true, named("kube-root-ca.crt", v1alpha1.PivotMark)},
		{fleet(v1alpha1.ClusterTemplateKind), false, false, nil},
		{fleet(v1alpha1.FleetClusterKind), true, false, nil},
		{fleet(v1alpha1.ClusterAssignmentKind), false, false, labelled(v1alpha1.LabelSelf)},
		{fleet(v1alpha1.PlacementKind), true, false, nil},
		{toolkit("source", "GitRepository"), false, false, nil},
		{toolkit("source", "OCIRepository"), false, false, nil},
		{toolkit("source", "HelmRepository"), false, false, nil},
		{toolkit("source", "Bucket"), false, false, nil},
		{schema.GroupKind{Group: "source.extensions.fluxcd.io", Kind: "ArtifactGenerator"}, false, false, nil},
		{toolkit("kustomize", "Kustomization"), true, false, labelled(v1alpha1.LabelMadeBy)},
		// A release that Git holds is made by its unit.
		{toolkit("helm", "HelmRelease"), false, false, labelled(object.KustomizeGroup + "/name")},
	}
}

func named(names ...string) func(*unstructured.Unstructured) bool {
	return func(u *unstructured.Unstructured) bool {
		for _, n := range names {
			if u.GetName() == n {
				return true
			}
		}
		return false
	}
}

func labelled(key string) func(*unstructured.Unstructured) bool {
	return func(u *unstructured.Unstructured) bool { return u.GetLabels()[key] != "" }
}

// secretStays: identities and invitations of agents, certificates of the hub, the storage of Helm, and what Cluster API moves itself.
func secretStays(u *unstructured.Unstructured) bool {
	kind, _, _ := unstructured.NestedString(u.Object, "type")
	if slices.Contains([]string{string(corev1.SecretTypeServiceAccountToken), "helm.sh/release.v1", "cluster.x-k8s.io/secret"}, kind) {
		return true
	}
	return named("hub", "bowline-invitation", "bowline-admission", v1alpha1.PivotMark)(u)
}

// labelIdentity is on all that is about who an agent is.
const labelIdentity = "fleet.bowline.dev/identity"

// moves reports whether an object moves. What somebody owns is made again by its owner, or moved by Cluster API; an
// assignment is what keeps members as they are while the new hub knows nothing yet.
func (k carried) moves(u *unstructured.Unstructured, clusters map[types.NamespacedName]bool) bool {
	switch {
	case len(u.GetOwnerReferences()) > 0 && k.Kind != v1alpha1.ClusterAssignmentKind, u.GetLabels()[labelIdentity] != "", u.GetDeletionTimestamp() != nil:
		return false
	case k.stays != nil && k.stays(u):
		return false
	case k.Kind == "Secret":
		// By their names these belong to a Cluster, without an owner.
		of, _, err := secret.ParseSecretName(u.GetName())
		return err != nil || !clusters[types.NamespacedName{Namespace: u.GetNamespace(), Name: of}]
	}
	return true
}

// list reads the objects of a kind in a namespace; none where the kind is not served.
func (k carried) list(ctx context.Context, s Side, namespace string) ([]unstructured.Unstructured, error) {
	mapping, err := s.Client.RESTMapper().RESTMapping(k.GroupKind)
	if apimeta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "look for %ss", k.Kind)
	}
	all := &unstructured.UnstructuredList{}
	all.SetGroupVersionKind(mapping.GroupVersionKind)
	err = s.Client.List(ctx, all, client.InNamespace(namespace))
	return all.Items, wrap(err, "list %ss in %s", k.Kind, namespace)
}

// content is what two objects of one name have to have in common to be the same.
func content(u *unstructured.Unstructured) map[string]any {
	c := maps.Clone(u.Object)
	delete(c, "metadata")
	delete(c, "status")
	return c
}

func same(a, b *unstructured.Unstructured) bool {
	return equality.Semantic.DeepEqual(content(a), content(b))
}

// carry copies our own objects. What an interrupted call has copied is copied again.
func (o Options) carry(ctx context.Context, p *Plan) error {
	for _, namespace := range p.Namespaces {
		if err := o.namespace(ctx, namespace); err != nil {
			return err
		}
	}
	for i := range p.Carry {
		if err := o.carryOne(ctx, &p.Carry[i]); err != nil {
			return err
		}
	}
	o.Tell("objects", fmt.Sprintf("copied: %d", len(p.Carry)))
	return nil
}

func (o Options) namespace(ctx context.Context, name string) error {
	from := &corev1.Namespace{}
	if err := o.From.Client.Get(ctx, client.ObjectKey{Name: name}, from); err != nil {
		return wrap(err, "read Namespace/%s", name)
	}
	to := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: from.Labels, Annotations: from.Annotations}}
	return wrap(client.IgnoreAlreadyExists(o.To.Client.Create(ctx, to, owner)), "make Namespace/%s", name)
}

// Item is an object that moves.
type Item struct {
	Object *unstructured.Unstructured
	status bool
}

func (o Options) carryOne(ctx context.Context, item *Item) error {
	want := stripped(item.Object)
	want.SetAnnotations(with(want.GetAnnotations(), carriedFrom, string(o.From.ID)))
	id := object.IDOf(want).String()
	if want.GetKind() == v1alpha1.ClusterAssignmentKind {
		if err := o.own(ctx, want); err != nil {
			return err
		}
	}
	now := want.DeepCopy()
	err := o.To.Client.Create(ctx, now, owner)
	if apierrors.IsAlreadyExists(err) {
		now = want.DeepCopy()
		if err = o.To.Client.Get(ctx, client.ObjectKeyFromObject(want), now); err == nil && now.GetAnnotations()[carriedFrom] != string(o.From.ID) {
			err = &failure.Error{Op: "copy", Object: id, Kind: failure.Conflict, Err: errors.New("the cluster has one of this name"), Remedy: "remove or rename one of the two"}
		}
	}
	if err != nil {
		return wrap(err, "copy %s", id)
	}
	if status, ok := keptStatus(item); ok {
		now.Object["status"] = status
		if err := o.To.Client.Status().Update(ctx, now, owner); err != nil {
			return wrap(err, "copy the status of %s", id)
		}
	}
	return disown(ctx, o.To, now, item.Object.GetManagedFields())
}

// disown has the fields of an object belong to whom they belonged: a unit could not take a field away that somebody else has as well.
func disown(ctx context.Context, s Side, u *unstructured.Unstructured, fields []metav1.ManagedFieldsEntry) error {
	if len(fields) == 0 {
		return nil
	}
	before := u.DeepCopy()
	u.SetManagedFields(fields)
	return wrap(s.Client.Patch(ctx, u, client.MergeFrom(before)), "give the fields of %s to whom they belong", object.IDOf(u))
}

// own has an assignment belong to the FleetCluster as it is on the target.
func (o Options) own(ctx context.Context, u *unstructured.Unstructured) error {
	cluster := &v1alpha1.FleetCluster{}
	if err := o.To.Client.Get(ctx, client.ObjectKeyFromObject(u), cluster); err != nil {
		return wrap(err, "read FleetCluster/%s/%s", u.GetNamespace(), u.GetName())
	}
	u.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(cluster, v1alpha1.GroupVersion.WithKind(v1alpha1.FleetClusterKind))})
	if client.ObjectKeyFromObject(u) == o.Cluster {
		withoutOwnSources(u)
	}
	return nil
}

// withoutOwnSources takes from the assignment of the cluster that becomes the hub what it has itself from then on.
func withoutOwnSources(u *unstructured.Unstructured) {
	all, _, _ := unstructured.NestedSlice(u.Object, "spec", "sources")
	kept := make([]any, 0, len(all))
	for _, s := range all {
		if m, ok := s.(map[string]any); !ok || m["namespace"] != u.GetNamespace() {
			kept = append(kept, s)
		}
	}
	if len(kept) < len(all) {
		_ = unstructured.SetNestedSlice(u.Object, kept, "spec", "sources")
	}
}

// stripped is an object as it is made anew.
func stripped(u *unstructured.Unstructured) *unstructured.Unstructured {
	out := u.DeepCopy()
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "finalizers", "ownerReferences", "managedFields", "selfLink", "generateName"} {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	delete(out.Object, "status")
	if out.GetKind() == "ServiceAccount" {
		delete(out.Object, "secrets")
	}
	return out
}

func with(all map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range all {
		if k != key {
			out[k] = v
		}
	}
	return out
}

// keptStatus is the status that an object begins with. A FleetCluster is known to be there, and which cluster it is; who its agent is comes anew.
func keptStatus(item *Item) (map[string]any, bool) {
	status, ok := item.Object.Object["status"].(map[string]any)
	if !item.status || !ok {
		return nil, false
	}
	if item.Object.GetKind() != v1alpha1.FleetClusterKind {
		return status, true
	}
	kept := map[string]any{}
	for _, field := range []string{"clusterID", "endpoint", "provider", "kubernetesVersion"} {
		if v, ok := status[field]; ok {
			kept[field] = v
		}
	}
	conditions, _ := status["conditions"].([]any)
	var told []any
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && (m["type"] == v1alpha1.ProvisionedCondition || m["type"] == v1alpha1.RenderedCondition) {
			told = append(told, c)
		}
	}
	if told != nil {
		kept["conditions"] = told
	}
	return kept, true
}
