package apply

import (
	"context"
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// Settled reports whether applying the object would change nothing, by asking
// the API server in a dry run. It implements plan.Prober.
func (a *Applier) Settled(ctx context.Context, desired *unstructured.Unstructured, ignored *ignore.Paths) (bool, error) {
	before, after, err := a.DryRun(ctx, desired, ignored)
	if err != nil {
		return false, err
	}
	return before != nil && Same(before, after), nil
}

// Exists implements plan.Prober.
func (a *Applier) Exists(ctx context.Context, gvk schema.GroupVersionKind, id object.ID) (bool, error) {
	resource, err := a.Cluster.Resources.Of(ctx, gvk)
	if errors.Is(err, kube.ErrUnknownKind) {
		return false, nil // apply reports the kind
	}
	if err != nil {
		return false, failed("read", id, err)
	}
	_, err = a.client(resource, id.Namespace).Get(ctx, id.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, failed("read", id, err)
	}
	return true, nil
}

// DryRun returns the object as it is, nil when it is not there, and as it would
// be after an apply that leaves these fields to others. Nothing is changed.
func (a *Applier) DryRun(ctx context.Context, desired *unstructured.Unstructured, ignored *ignore.Paths) (before, after *unstructured.Unstructured, err error) {
	id := object.IDOf(desired)
	resource, err := a.Cluster.Resources.Of(ctx, desired.GroupVersionKind())
	if err != nil {
		return nil, nil, failed("dry run", id, err)
	}
	getter := a.Cluster.Dynamic.Resource(resource.GroupVersionResource)
	client := getter.Namespace(id.Namespace)
	if !resource.Namespaced {
		client = getter.Namespace("")
	}
	if before, err = a.Live(ctx, plan.Action{ID: id, Version: desired.GroupVersionKind().Version}); err != nil {
		return nil, nil, err
	}
	data, err := json.Marshal(a.yield(desired, before, ignored))
	if err != nil {
		return nil, nil, failed("dry run", id, err)
	}
	a.Count("dry-run")
	force := true
	after, err = client.Patch(ctx, id.Name, types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager: a.Manager, Force: &force, DryRun: []string{metav1.DryRunAll},
	})
	if err != nil {
		return nil, nil, withoutSecrets(failed("dry run", id, err), desired)
	}
	return before, after, nil
}

// Live returns the object as it is, and nil when it is not there.
func (a *Applier) Live(ctx context.Context, action plan.Action) (*unstructured.Unstructured, error) {
	resource, err := a.Cluster.Resources.Of(ctx, action.GVK())
	if err != nil {
		return nil, failed("read", action.ID, err)
	}
	namespace := action.ID.Namespace
	if !resource.Namespaced {
		namespace = ""
	}
	live, err := a.Cluster.Dynamic.Resource(resource.GroupVersionResource).Namespace(namespace).Get(ctx, action.ID.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("read", action.ID, err)
	}
	return live, nil
}

// Same reports whether two states of an object hold the same content. What the
// API server counts is no content: versions, generation and times. Nor is the
// status, which moves by itself and is never applied.
func Same(x, y *unstructured.Unstructured) bool {
	return equality.Semantic.DeepEqual(content(x), content(y))
}

func content(u *unstructured.Unstructured) map[string]any {
	c := u.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"} {
		unstructured.RemoveNestedField(c.Object, "metadata", field)
	}
	delete(c.Object, "status")
	return c.Object
}
