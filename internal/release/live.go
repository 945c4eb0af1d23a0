package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
)

// Live is one cluster as the steps of a release use it.
type Live struct {
	// Cluster with the clients of the unit's account.
	Cluster *kube.Cluster
	// Slots bounds the applies under way at one time, over all units.
	Slots chan struct{}
	// Count is told of every request: "apply" or "delete".
	Count func(request string)
}

// read is one object of a manifest; a namespace that is missing is the release's.
func (l *Live) read(ctx context.Context, manifest, namespace string) (*unstructured.Unstructured, error) {
	data, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		return nil, &failure.Error{Op: "read a stored manifest", Kind: failure.Invalid, Err: errors.New("it is no YAML")}
	}
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(data); err != nil {
		return nil, &failure.Error{Op: "read a stored manifest", Kind: failure.Invalid, Err: errors.New("it is no Kubernetes object")}
	}
	resource, err := l.Cluster.Resources.Of(ctx, u.GroupVersionKind())
	if err != nil {
		return &u, fmt.Errorf("read the manifest of %s: %w", object.IDOf(&u), err)
	}
	switch {
	case !resource.Namespaced:
		u.SetNamespace("")
	case u.GetNamespace() == "":
		u.SetNamespace(namespace)
	}
	return &u, nil
}

func referenceOf(u *unstructured.Unstructured) observe.Reference {
	return observe.Reference{ID: object.IDOf(u), Version: u.GroupVersionKind().Version}
}

func kindOf(ref observe.Reference) schema.GroupVersionKind {
	return ref.ID.GroupKind().WithVersion(ref.Version)
}

// metadata returns an object's metadata; nil when it is not there.
func (l *Live) metadata(ctx context.Context, ref observe.Reference) (*metav1.PartialObjectMetadata, error) {
	client, err := l.metadataOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	live, err := client.Get(ctx, ref.ID.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("read", ref, err)
	}
	return live, nil
}

func (l *Live) metadataOf(ctx context.Context, ref observe.Reference) (metadata.ResourceInterface, error) {
	resource, err := l.Cluster.Resources.Of(ctx, kindOf(ref))
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", ref.ID, err)
	}
	all := l.Cluster.Metadata.Resource(resource.GroupVersionResource)
	if resource.Namespaced {
		return all.Namespace(ref.ID.Namespace), nil
	}
	return all, nil
}

// MadeBefore reports whether the object was made before this time of the server, which is told in
// seconds; one that is not there was not.
func (l *Live) MadeBefore(ctx context.Context, ref observe.Reference, since time.Time) (bool, error) {
	live, err := l.metadata(ctx, ref)
	return live != nil && live.CreationTimestamp.Time.Before(since), err
}

// whole returns the whole object; nil when it is not there.
func (l *Live) whole(ctx context.Context, ref observe.Reference) (*unstructured.Unstructured, error) {
	resource, err := l.Cluster.Resources.Of(ctx, kindOf(ref))
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", ref.ID, err)
	}
	var client dynamic.ResourceInterface = l.Cluster.Dynamic.Resource(resource.GroupVersionResource)
	if resource.Namespaced {
		client = l.Cluster.Dynamic.Resource(resource.GroupVersionResource).Namespace(ref.ID.Namespace)
	}
	live, err := client.Get(ctx, ref.ID.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("read", ref, err)
	}
	return live, nil
}

// remove deletes exactly this object; that it is gone or going is no error.
func (l *Live) remove(ctx context.Context, ref observe.Reference, live *metav1.PartialObjectMetadata, how metav1.DeletionPropagation) error {
	if live.DeletionTimestamp != nil {
		return nil
	}
	client, err := l.metadataOf(ctx, ref)
	if err != nil {
		return err
	}
	l.Count("delete")
	err = client.Delete(ctx, ref.ID.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &live.UID}, PropagationPolicy: &how,
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return failed("delete", ref, err)
	}
	return nil
}

// send applies one object. No ledger is told: what a step sends is no part of what the
// unit delivers.
func (l *Live) send(ctx context.Context, u *unstructured.Unstructured) error {
	ref := referenceOf(u)
	a := &apply.Applier{Cluster: l.Cluster, Manager: Manager, Journal: silent{}, Observe: silent{}, Slots: l.Slots, Count: l.Count}
	p := &plan.Plan{Actions: []plan.Action{{Verb: plan.Create, ID: ref.ID, Version: ref.Version}}}
	return a.Apply(ctx, p, plan.Objects{ref.ID: u}).Err()
}

// silent is the journal of objects that no ledger keeps.
type silent struct{}

func (silent) Applying(object.ID)                                       {}
func (silent) Applied(object.ID, string, *metav1.PartialObjectMetadata) {}
func (silent) NotApplied(object.ID)                                     {}
func (silent) Deleted(object.ID)                                        {}
func (silent) Ready(object.ID) (bool, error)                            { return true, nil }
func (silent) Watch(context.Context, schema.GroupVersionKind) error     { return nil }

func failed(op string, ref observe.Reference, err error) error {
	f := &failure.Error{Op: op, Kind: failure.Unavailable, Object: ref.ID.String(), Err: err}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		f.Kind = failure.Denied
	}
	return f
}

// CreatedAt returns when the revision was first stored, by the server's clock.
func (s *Store) CreatedAt(ctx context.Context, r *Record) (time.Time, error) {
	name := SecretName(r.Name, r.Version)
	live, err := s.metadata.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return time.Time{}, s.failed("read the revision", name, err)
	}
	return live.CreationTimestamp.Time, nil
}

// Mark stores the marks of a revision and nothing else of it.
func (s *Store) Mark(ctx context.Context, r *Record) error {
	marks, err := json.Marshal(r.Marks)
	if err != nil {
		return fmt.Errorf("write the marks: %w", err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": r.ResourceVersion, "annotations": map[string]string{MarksAnnotation: string(marks)},
	}})
	if err != nil {
		return fmt.Errorf("write the marks: %w", err)
	}
	return s.mark(ctx, r, patch)
}
