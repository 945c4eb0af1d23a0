package pipeline

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// dressed is what dress makes.
type dressed struct {
	wants   []plan.Want
	objects plan.Objects
	// unknown: there are kinds that nobody serves or defines.
	unknown bool
}

// dress makes built objects ready to be sent: it gives them the scope that the
// cluster knows, the owner labels and the digest, and notes in short what is
// wanted. Every object without a fitting namespace is reported.
func dress(ctx context.Context, u Unit, kinds *kube.Resources, built []*unstructured.Unstructured) (dressed, error) {
	d := dressed{wants: make([]plan.Want, 0, len(built)), objects: make(plan.Objects, len(built))}
	defined := definedScopes(built)
	var errs []error
	for _, o := range built {
		known, err := fitScope(ctx, o, kinds, defined)
		if err == nil {
			err = errors.Join(plainText(o), plainData(o))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.unknown = d.unknown || !known
		id := object.IDOf(o)
		if d.objects[id] != nil {
			errs = append(errs, &failure.Error{Op: "build", Kind: failure.Invalid, Object: id.String(),
				Err: errors.New("two objects have this identity"), Remedy: "remove or rename one of them"})
			continue
		}
		d.objects[id] = o
		d.wants = append(d.wants, mark(u, o))
	}
	return d, errors.Join(errs...)
}

// mark gives the object our labels and digest and says what is wanted of it.
func mark(u Unit, o *unstructured.Unstructured) plan.Want {
	unstructured.RemoveNestedField(o.Object, "status")
	object.SetOwner(o, object.Owner{Group: cmp.Or(u.Group, object.KustomizeGroup), Name: u.Name.Name, Namespace: u.Name.Namespace})
	ignored := u.Ignore.Of(o)
	digest := object.Digest(ignored.Without(o))
	setAnnotation(o, object.AppliedDigestAnnotation, digest)
	id, asked := object.IDOf(o), plan.AskedOf(o, u.Group)
	// What holds data or takes other things with it is replaced only when it says so
	// itself: that a whole unit may replace what it has is no consent to lose a volume.
	all := u.Replace && (u.Policy.Budget.Off || !plan.Guarded(id.GroupKind()))
	return plan.Want{
		ID: id, Version: o.GroupVersionKind().Version, Digest: digest,
		Mode: asked.Mode, Replace: all || asked.Replace, Ignored: ignored, Lax: asked.Lax || u.Ignore.Whole(o),
	}
}

func setAnnotation(o *unstructured.Unstructured, key, value string) {
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	o.SetAnnotations(annotations)
}

// fitScope removes the namespace of cluster-scoped objects and demands one of
// all others. It reports whether the kind is known at all.
func fitScope(ctx context.Context, o *unstructured.Unstructured, kinds *kube.Resources, defined map[schema.GroupKind]bool) (bool, error) {
	gvk := o.GroupVersionKind()
	resource, err := kinds.Of(ctx, gvk)
	namespaced := resource.Namespaced
	if errors.Is(err, kube.ErrUnknownKind) {
		scope, here := defined[gvk.GroupKind()]
		if !here {
			return false, nil // apply reports the kind, unless it appears by then
		}
		namespaced, err = scope, nil
	}
	if err != nil {
		return false, fmt.Errorf("build %s: %w", object.IDOf(o), err)
	}
	switch {
	case !namespaced:
		unstructured.RemoveNestedField(o.Object, "metadata", "namespace")
	case o.GetNamespace() == "":
		return true, &failure.Error{Op: "build", Kind: failure.Invalid, Object: object.IDOf(o).String(),
			Err: errors.New("namespace is missing"), Remedy: "set metadata.namespace, or spec.targetNamespace of the Kustomization"}
	}
	return true, nil
}

// definedScopes returns, for the kinds that the objects themselves define,
// whether they are namespaced.
func definedScopes(built []*unstructured.Unstructured) map[schema.GroupKind]bool {
	var defined map[schema.GroupKind]bool
	for _, o := range built {
		if o.GetKind() != "CustomResourceDefinition" || o.GroupVersionKind().Group != "apiextensions.k8s.io" {
			continue
		}
		group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
		scope, _, _ := unstructured.NestedString(o.Object, "spec", "scope")
		if defined == nil {
			defined = map[schema.GroupKind]bool{}
		}
		defined[schema.GroupKind{Group: group, Kind: kind}] = scope == "Namespaced"
	}
	return defined
}

// plainText demands that labels and annotations are strings: ours could not be
// added to others. An explicit null is the same as none.
func plainText(o *unstructured.Unstructured) error {
	for _, field := range []string{"labels", "annotations"} {
		if value, found, _ := unstructured.NestedFieldNoCopy(o.Object, "metadata", field); found && value == nil {
			unstructured.RemoveNestedField(o.Object, "metadata", field)
		}
		if _, _, err := unstructured.NestedStringMap(o.Object, "metadata", field); err != nil {
			return &failure.Error{Op: "build", Kind: failure.Invalid, Object: object.IDOf(o).String(),
				Err: errors.New("metadata." + field + " has a value that is not a string"), Remedy: "quote the value"}
		}
	}
	return nil
}

// plainData turns a Secret's stringData, which the API server only reads, into
// data, which it also keeps and whose ownership it records.
func plainData(o *unstructured.Unstructured) error {
	if o.GetKind() != "Secret" || o.GroupVersionKind().Group != "" {
		return nil
	}
	for _, field := range []string{"data", "stringData"} {
		if value, found := o.Object[field]; found && value == nil {
			delete(o.Object, field)
		}
	}
	text, found, err := unstructured.NestedStringMap(o.Object, "stringData")
	if err != nil {
		return &failure.Error{Op: "build", Kind: failure.Invalid, Object: object.IDOf(o).String(),
			Err: errors.New("stringData has a value that is not a string"), Remedy: "quote the values of stringData"}
	}
	if !found {
		return nil
	}
	for key, value := range text {
		encoded := base64.StdEncoding.EncodeToString([]byte(value))
		if err := unstructured.SetNestedField(o.Object, encoded, "data", key); err != nil {
			return fmt.Errorf("build %s: %w", object.IDOf(o), err)
		}
	}
	unstructured.RemoveNestedField(o.Object, "stringData")
	return nil
}
