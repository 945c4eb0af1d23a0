package cli

import (
	"context"
	"errors"
	"sync"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// notThere is the health of an object that the inventory names and the cluster
// does not have.
const notThere = "NotFound"

// treeReaders bounds how many objects are read at a time.
const treeReaders = 8

// node is one object of a tree.
type node struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	// Health is a kstatus word, NotFound, or of a unit on another cluster Suspended.
	Health string `json:"health"`
	// Message says what is wrong, or for what delivers others what it stands at.
	Message string `json:"message,omitempty"`
	// Objects is what it delivered.
	Objects []*node `json:"objects,omitempty"`

	id object.ID
}

func (n *node) label() string { return n.id.String() }

// delivers reports whether objects of a kind deliver others and keep an inventory.
func delivers(k schema.GroupKind) bool {
	return k == kustomizationKind().gvk.GroupKind() || k == helmReleaseKind().gvk.GroupKind()
}

// readTree reads an object that delivers others, and everything below it.
func (c *cluster) readTree(ctx context.Context, k kind, name string) (*node, error) {
	obj, err := c.get(ctx, k, name)
	if err != nil {
		return nil, err
	}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: raw}
	n := nodeOf(object.IDOf(u), u.GetAPIVersion())
	n.judge(ctx, c, u)
	return n, c.expand(ctx, n, u, map[object.ID]bool{})
}

func nodeOf(id object.ID, apiVersion string) *node {
	return &node{APIVersion: apiVersion, Kind: id.Kind, Namespace: id.Namespace, Name: id.Name, id: id}
}

// inventoried is what Kustomizations and HelmReleases have in common.
type inventoried struct {
	Status struct {
		Inventory *kustomizev1.ResourceInventory `json:"inventory"`
	} `json:"status"`
}

// expand reads what u delivered. above holds what is on the way to it, itself not
// included.
func (c *cluster) expand(ctx context.Context, n *node, u *unstructured.Unstructured, above map[object.ID]bool) error {
	if above[n.id] {
		n.Message = errCycle.Error()
		return nil
	}
	above[n.id] = true
	defer delete(above, n.id)
	var unit inventoried
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &unit); err != nil {
		return err
	}
	if unit.Status.Inventory == nil {
		return nil
	}
	live, err := c.readEntries(ctx, n, unit.Status.Inventory.Entries)
	if err != nil {
		return err
	}
	for i, child := range n.Objects {
		if live[i] != nil && delivers(child.id.GroupKind()) {
			if err := c.expand(ctx, child, live[i], above); err != nil {
				return err
			}
		}
	}
	return nil
}

// readEntries reads the objects of an inventory, several at a time, into
// n.Objects in the inventory's order. Where an object is not there, the live
// one is nil.
func (c *cluster) readEntries(ctx context.Context, n *node, entries []kustomizev1.ResourceRef) ([]*unstructured.Unstructured, error) {
	live := make([]*unstructured.Unstructured, len(entries))
	errs := make([]error, len(entries))
	n.Objects = make([]*node, len(entries))
	var wg sync.WaitGroup
	slots := make(chan struct{}, treeReaders)
	for i, entry := range entries {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n.Objects[i], live[i], errs[i] = c.readEntry(ctx, entry)
		})
	}
	wg.Wait()
	return live, errors.Join(errs...)
}

func (c *cluster) readEntry(ctx context.Context, entry kustomizev1.ResourceRef) (*node, *unstructured.Unstructured, error) {
	id, err := object.ParseInventory(entry.ID)
	if err != nil {
		return nil, nil, err
	}
	gvk := id.GroupKind().WithVersion(entry.Version)
	n := nodeOf(id, gvk.GroupVersion().String())
	n.Health = notThere
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	err = c.Get(ctx, client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, u)
	switch {
	case apierrors.IsNotFound(err):
		n.Message = "the inventory names it, but it is not on the cluster"
		return n, nil, nil
	case meta.IsNoMatchError(err):
		n.Message = "the cluster no longer serves this kind"
		return n, nil, nil
	case apierrors.IsForbidden(err):
		n.Health, n.Message = health.Unknown.String(), "you are not allowed to read it"
		return n, nil, nil
	case err != nil:
		return nil, nil, err
	}
	n.judge(ctx, c, u)
	return n, u, nil
}

// judge fills in the health of the live object u. A cause that cannot be read
// leaves the verdict as it is.
func (n *node) judge(ctx context.Context, c *cluster, u *unstructured.Unstructured) {
	v := health.Of(u)
	if v.Status != health.Current {
		if cause, err := health.Explain(ctx, c, u); err == nil {
			v = v.With(cause)
		}
	}
	n.Health, n.Message = v.Status.String(), v.Message
	for _, k := range []kind{kustomizationKind(), helmReleaseKind()} {
		unit := k.newObject()
		if n.id.GroupKind() != k.gvk.GroupKind() || runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, unit) != nil {
			continue
		}
		s := k.state(unit)
		n.Message = line(s.ready().Message)
		if v.Status == health.Current {
			n.Message = shortRevision(s.revision)
		}
	}
}
