// Package object is the leaf room of Kubernetes objects as values: their
// identity, the order in which they are applied, the digest that says whether
// two of them are the same, and how they are shown without giving secrets away.
package object

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ID identifies an object on a cluster independent of its API version. It is
// comparable and small, so that ledgers can be keyed by it.
type ID struct {
	Group     string
	Kind      string
	Namespace string // empty for cluster-scoped objects
	Name      string
}

// IDOf returns the identity of u.
func IDOf(u *unstructured.Unstructured) ID {
	gvk := u.GroupVersionKind()
	return ID{Group: gvk.Group, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}
}

// GroupKind returns the API group and kind.
func (id ID) GroupKind() schema.GroupKind { return schema.GroupKind{Group: id.Group, Kind: id.Kind} }

// String prints the identity for people: Kind/namespace/name, or Kind/name for
// cluster-scoped objects.
func (id ID) String() string {
	if id.Namespace == "" {
		return id.Kind + "/" + id.Name
	}
	return id.Kind + "/" + id.Namespace + "/" + id.Name
}

// colon stands for ':' in inventory names, which RBAC names may hold; the form
// is the one of the toolkit's inventories.
const colon = "__"

// Inventory returns the identity in the toolkit's inventory form,
// namespace_name_group_kind.
func (id ID) Inventory() string {
	return strings.Join([]string{id.Namespace, strings.ReplaceAll(id.Name, ":", colon), id.Group, id.Kind}, "_")
}

// ParseInventory reads an identity in the toolkit's inventory form.
func ParseInventory(s string) (ID, error) {
	ns, rest, ok1 := strings.Cut(s, "_")
	k := strings.LastIndex(rest, "_")
	if !ok1 || k < 0 {
		return ID{}, fmt.Errorf("inventory entry %q is not namespace_name_group_kind", s)
	}
	kind, rest := rest[k+1:], rest[:k]
	g := strings.LastIndex(rest, "_")
	if g < 0 || kind == "" {
		return ID{}, fmt.Errorf("inventory entry %q is not namespace_name_group_kind", s)
	}
	name, group := rest[:g], rest[g+1:]
	return ID{Group: group, Kind: kind, Namespace: ns, Name: strings.ReplaceAll(name, colon, ":")}, nil
}
