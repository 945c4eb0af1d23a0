package kustomize

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/object"
)

// errNotDirect says that only kustomize knows what becomes of an input.
var errNotDirect = errors.New("not a plain manifest")

// direct reads the manifests of a survey without kustomize. It is right only
// where the kustomizations are plain: kustomize would then pass every object on
// as it is, save for those that decode rejects with errNotDirect. With explain,
// it goes on past those, to find the first thing that is wrong.
func direct(s *survey, explain bool) ([]*unstructured.Unstructured, error) {
	objects := make([]*unstructured.Unstructured, 0, len(s.files))
	where := make(map[object.ID]string, len(s.files))
	skipped := error(nil)
	for _, name := range s.files {
		data, err := s.r.file(name)
		if err != nil {
			return nil, err
		}
		err = decode(name, data, func(line int, u *unstructured.Unstructured) error {
			at := fmt.Sprintf("%s:%d", name, line)
			if u.GetName() == "" || u.GetAPIVersion() == "" {
				return incomplete(at, u)
			}
			id := sameAsKustomize(object.IDOf(u))
			if first, ok := where[id]; ok {
				return duplicate(object.IDOf(u), first, at)
			}
			where[id] = at
			objects = append(objects, u)
			return nil
		})
		switch {
		case err == nil:
		case explain && errors.Is(err, errNotDirect):
			skipped = err
		default:
			return nil, err
		}
	}
	return objects, skipped
}

// sameAsKustomize returns the key under which kustomize takes two objects for
// one: it holds no namespace to be the namespace "default".
func sameAsKustomize(id object.ID) object.ID {
	if id.Namespace == "default" {
		id.Namespace = ""
	}
	return id
}

func duplicate(id object.ID, first, second string) error {
	return invalid(second, "", fmt.Errorf("%s is also in %s", id, first), "keep one of them")
}

// incomplete says what an object lacks to be one.
func incomplete(at string, u *unstructured.Unstructured) error {
	var lacks []string
	if u.GetAPIVersion() == "" {
		lacks = append(lacks, "apiVersion")
	}
	if u.GetKind() == "" {
		lacks = append(lacks, "kind")
	}
	if u.GetName() == "" {
		lacks = append(lacks, "metadata.name")
	}
	what := "this is not a Kubernetes object"
	if kind, name := u.GetKind(), u.GetName(); kind != "" || name != "" {
		what = strings.TrimSpace(kind + " " + name)
	}
	return invalid(at, "", fmt.Errorf("%s: %s missing or not a string", what, strings.Join(lacks, ", ")), "complete it, or keep other files out of the folder")
}
