package kustomize

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/object"
)

// errNotDirect says that only kustomize knows what becomes of an input.
var errNotDirect = errors.New("not a plain manifest")

// direct reads the manifests of a survey without kustomize. It is right only
// where the kustomizations are plain: kustomize would then pass every object on
// as it is, save for those that decode rejects with errNotDirect.
func direct(s *survey) ([]*unstructured.Unstructured, error) {
	objects := make([]*unstructured.Unstructured, 0, len(s.files))
	where := make(map[object.ID]origin, len(s.files))
	for _, name := range s.files {
		err := manifest(s.r, name, func(line int, u *unstructured.Unstructured) error {
			if err := claim(where, origin{name, line}, u); err != nil {
				return err
			}
			objects = append(objects, u)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// findFault looks through the manifests of a survey for what may have made
// kustomize fail, and returns nil where it finds nothing. Objects that are there
// twice are looked for on request only: a kustomization may well rename one.
func findFault(s *survey, twice bool) error {
	where := make(map[object.ID]origin, len(s.files))
	for _, name := range s.files {
		err := manifest(s.r, name, func(line int, u *unstructured.Unstructured) error {
			if twice {
				return claim(where, origin{name, line}, u)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errNotDirect) {
			return err
		}
	}
	return nil
}

func manifest(r *reader, name string, emit func(int, *unstructured.Unstructured) error) error {
	data, err := r.file(name)
	if err != nil {
		return err
	}
	return decode(name, data, emit)
}

// origin is where an object starts.
type origin struct {
	file string
	line int
}

func (o origin) String() string { return o.file + ":" + strconv.Itoa(o.line) }

// claim fails for an object that lacks what identifies it, or that is there
// already.
func claim(where map[object.ID]origin, at origin, u *unstructured.Unstructured) error {
	if u.GetName() == "" || u.GetAPIVersion() == "" {
		return incomplete(at.String(), u)
	}
	id := sameAsKustomize(object.IDOf(u))
	first, there := where[id]
	where[id] = at
	switch {
	case !there:
		return nil
	case first == at:
		return invalid(at.String(), "", fmt.Errorf("%s is built twice from this file, by two kustomizations", object.IDOf(u)),
			"build one of them, or change its name or namespace in one")
	}
	return invalid(at.String(), "", fmt.Errorf("%s is also in %s", object.IDOf(u), first), "keep one of them")
}

// sameAsKustomize returns the key under which kustomize takes two objects for
// one: it holds no namespace to be the namespace "default".
func sameAsKustomize(id object.ID) object.ID {
	if id.Namespace == "default" {
		id.Namespace = ""
	}
	return id
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
