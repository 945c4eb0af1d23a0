package helm

import (
	"context"
	"encoding/base64"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Lookup answers templates that ask for objects of the target cluster, in the name of
// whoever the release belongs to.
type Lookup interface {
	// Lookup returns an object, or a list with its "items" where name is empty. What is
	// not there is an empty map and no error. namespace may be empty.
	Lookup(ctx context.Context, kind schema.GroupVersionKind, namespace, name string) (map[string]any, error)
}

// NoCluster is the Lookup of a build that has none: it finds nothing, as "helm
// template" does.
type NoCluster struct{}

// Lookup implements Lookup.
func (NoCluster) Lookup(context.Context, schema.GroupVersionKind, string, string) (map[string]any, error) {
	return map[string]any{}, nil
}

// ClusterLookup looks things up with a client.
type ClusterLookup struct {
	Client dynamic.Interface
	// ResourceOf returns the resource of a kind, and whether it is namespaced.
	ResourceOf func(context.Context, schema.GroupVersionKind) (schema.GroupVersionResource, bool, error)
}

// Lookup implements Lookup.
func (l ClusterLookup) Lookup(ctx context.Context, kind schema.GroupVersionKind, namespace, name string) (map[string]any, error) {
	resource, namespaced, err := l.ResourceOf(ctx, kind)
	if err != nil {
		return nil, err
	}
	var from dynamic.ResourceInterface = l.Client.Resource(resource)
	if namespaced && namespace != "" {
		from = l.Client.Resource(resource).Namespace(namespace)
	}
	if name == "" {
		list, err := from.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nothing(err)
		}
		return list.UnstructuredContent(), nil
	}
	found, err := from.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nothing(err)
	}
	return found.UnstructuredContent(), nil
}

func nothing(err error) (map[string]any, error) {
	if apierrors.IsNotFound(err) {
		return map[string]any{}, nil
	}
	return nil, err
}

// asking is the template function lookup during one rendering.
type asking struct {
	req     Request
	ctx     context.Context
	secrets *secrets
	used    bool
	// err is the first answer that failed. Templates cannot catch it, and what they
	// make of it says less.
	err error
}

func (a *asking) lookup(apiVersion, kind, namespace, name string) (map[string]any, error) {
	a.used = true
	if a.req.Lookup == nil {
		return nil, a.failed(&failure.Error{Op: "look up", Kind: failure.Unsupported, Object: kind,
			Err: errors.New("there is no cluster to ask")})
	}
	found, err := a.req.Lookup.Lookup(a.ctx, schema.FromAPIVersionAndKind(apiVersion, kind), namespace, name)
	if err != nil {
		object := kind
		for _, part := range []string{namespace, name} {
			if part != "" {
				object += "/" + part
			}
		}
		return nil, a.failed(&failure.Error{Op: "look up", Kind: kindOf(err), Object: object, Err: err})
	}
	if apiVersion == "v1" && kind == "Secret" {
		a.conceal(found)
	}
	return found, nil
}

// kindOf says whether asking again may help.
func kindOf(err error) failure.Kind {
	switch kind := failure.KindOf(err); {
	case kind != "":
		return kind
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return failure.Denied
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err):
		return failure.Invalid
	default:
		return failure.Unavailable
	}
}

func (a *asking) failed(err error) error {
	if a.err == nil {
		a.err = err
	}
	return err
}

// conceal keeps what a Secret of the cluster holds, or a list of them, out of messages.
func (a *asking) conceal(found map[string]any) {
	if items, ok := found["items"].([]any); ok {
		for _, item := range items {
			if secret, ok := item.(map[string]any); ok {
				a.conceal(secret)
			}
		}
	}
	data, _ := found["data"].(map[string]any)
	for _, value := range data {
		encoded, _ := value.(string)
		if plain, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			a.secrets.add(encoded, string(plain))
		}
	}
}
