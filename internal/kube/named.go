package kube

import (
	"context"
	"errors"
	"strconv"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"

	"github.com/bowline-dev/bowline/internal/failure"
)

// named is a metadata client that sends no request whose names would lead it to
// another object: unlike the dynamic client, that of client-go joins "../.." into the
// address as it is.
type named struct{ metadata.Interface }

// Resource implements metadata.Interface.
func (n named) Resource(r schema.GroupVersionResource) metadata.Getter {
	all := n.Interface.Resource(r)
	return namedGetter{namedResource{all, ""}, all}
}

type namedGetter struct {
	namedResource
	all metadata.Getter
}

// Namespace implements metadata.Getter.
func (g namedGetter) Namespace(namespace string) metadata.ResourceInterface {
	return namedResource{g.all.Namespace(namespace), namespace}
}

type namedResource struct {
	metadata.ResourceInterface
	namespace string
}

// check says which of the names of a request is none.
func (r namedResource) check(names ...string) error {
	for _, name := range append(names, r.namespace) {
		if problems := content.IsPathSegmentName(name); len(problems) > 0 {
			return &failure.Error{Op: "ask for", Object: strconv.Quote(name), Kind: failure.Invalid,
				Err: errors.New("it is no name of an object: it " + problems[0]), Remedy: "correct it"}
		}
	}
	return nil
}

// Get implements metadata.ResourceInterface.
func (r namedResource) Get(ctx context.Context, name string, o metav1.GetOptions, sub ...string) (*metav1.PartialObjectMetadata, error) {
	if err := r.check(name); err != nil {
		return nil, err
	}
	return r.ResourceInterface.Get(ctx, name, o, sub...)
}

// Patch implements metadata.ResourceInterface.
func (r namedResource) Patch(ctx context.Context, name string, t types.PatchType, data []byte, o metav1.PatchOptions, sub ...string) (*metav1.PartialObjectMetadata, error) {
	if err := r.check(name); err != nil {
		return nil, err
	}
	return r.ResourceInterface.Patch(ctx, name, t, data, o, sub...)
}

// Delete implements metadata.ResourceInterface.
func (r namedResource) Delete(ctx context.Context, name string, o metav1.DeleteOptions, sub ...string) error {
	if err := r.check(name); err != nil {
		return err
	}
	return r.ResourceInterface.Delete(ctx, name, o, sub...)
}

// DeleteCollection implements metadata.ResourceInterface.
func (r namedResource) DeleteCollection(ctx context.Context, o metav1.DeleteOptions, which metav1.ListOptions) error {
	if err := r.check(); err != nil {
		return err
	}
	return r.ResourceInterface.DeleteCollection(ctx, o, which)
}

// List implements metadata.ResourceInterface.
func (r namedResource) List(ctx context.Context, o metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return r.ResourceInterface.List(ctx, o)
}

// Watch implements metadata.ResourceInterface.
func (r namedResource) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return r.ResourceInterface.Watch(ctx, o)
}
