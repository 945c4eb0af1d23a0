package kube

import (
	"context"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Statuses replaces the statuses of objects of one kind, and is answered with their metadata only: the cheapest
// write that the API server has. A patch costs it one more encoding and decoding of the whole object, and an
// answer with the whole object costs both sides another.
type Statuses struct {
	client rest.Interface
	kind   schema.GroupVersionKind
	// resource is what the kind is called in addresses.
	resource string
}

// Statuses returns those of a kind whose objects are in namespaces.
func (c *Cluster) Statuses(kind schema.GroupVersionKind, resource string) Statuses {
	return Statuses{client: c.plain, kind: kind, resource: resource}
}

// onlyMetadata asks for the metadata of what was written.
const onlyMetadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// Put makes the status of an object what o says, and notes the new resource version in o. If somebody changed the
// object since o was read, the error is a conflict and nothing was written. A definition in the cluster that is older
// than this program loses the fields that it does not have, in silence.
func (s Statuses) Put(ctx context.Context, o client.Object, manager string) error {
	o.GetObjectKind().SetGroupVersionKind(s.kind)
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	answer := &metav1.PartialObjectMetadata{}
	err = s.client.Put().
		AbsPath("/apis", s.kind.Group, s.kind.Version, "namespaces", o.GetNamespace(), s.resource, o.GetName(), "status").
		Param("fieldManager", manager).Param("fieldValidation", metav1.FieldValidationIgnore).
		SetHeader("Accept", onlyMetadata).SetHeader("Content-Type", "application/json").
		Body(body).Do(ctx).Into(answer)
	if err != nil {
		return err
	}
	o.SetResourceVersion(answer.ResourceVersion)
	return nil
}
