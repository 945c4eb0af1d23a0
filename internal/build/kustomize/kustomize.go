// Package kustomize is the build step that turns a folder of a source into
// objects, as the toolkit's kustomize controller does: with kustomize itself
// where a kustomization asks for changes, and straight from the manifests where
// it only lists them, with the same result. Nothing is unpacked to disk.
package kustomize

import (
	"context"
	"errors"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/subst"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/source"
)

// Build makes the objects that recipe means in tree. It may be called by many
// goroutines at once.
//
// Errors are of type *failure.Error: NotFound for a folder that is not there,
// Unsupported for remote bases and helm charts, Timeout when ctx ended, and
// Invalid for everything else that the input gets wrong. Build returns as soon
// as ctx ends, or at the latest when the file that it is reading then is read. A build of no objects fails with build.ErrEmpty. The Reads of the
// result are set in every case.
func Build(ctx context.Context, tree source.Tree, recipe build.Recipe) (res build.Result, err error) {
	r := newReader(ctx, tree)
	defer func() {
		if p := recover(); p != nil {
			// The libraries that read YAML and replace variables have panicked on
			// odd input before. That must not take the other units down.
			res = build.Result{Reads: r.reads}
			if recipe.Decryption != nil {
				p = "a library failed" // it may have quoted plain text
			}
			err = invalid("path "+quoted(recipe.Path), "", fmt.Errorf("a file in it cannot be made sense of: %v", p), "look at the latest change to it")
		}
	}()
	objects, err := render(ctx, r, recipe)
	if failure.KindOf(err) == failure.Timeout {
		// Nothing is known about such a build; and r may still be in use.
		return build.Result{Reads: build.Reads{build.Elsewhere: build.Absent}}, err
	}
	if err == nil {
		objects, err = finish(ctx, objects, recipe)
	}
	if err != nil && recipe.Decryption != nil {
		err = recipe.Decryption.Conceal(err)
	}
	return build.Result{Objects: objects, Reads: r.reads}, err
}

// render makes the objects, up to the point where kustomize is done with them.
func render(ctx context.Context, r *reader, recipe build.Recipe) ([]*unstructured.Unstructured, error) {
	rt, err := makeRoot(r, recipe)
	if err != nil {
		return nil, err
	}
	if rt.generated && len(rt.kust.Resources) == 0 && len(rt.kust.Components) == 0 {
		return nil, nil
	}
	s := &survey{r: r, allowRemote: recipe.AllowRemoteBases, decrypter: recipe.Decryption, plain: true}
	if err := s.kustomization(place{dir: rt.dir, file: rt.file}, rt.kust); err != nil {
		return nil, err
	}
	if s.plain {
		objects, err := direct(s)
		if !errors.Is(err, errNotDirect) {
			return objects, err
		}
	}
	if s.remote {
		r.reads[build.Elsewhere] = build.Absent
	}
	objects, err := runKrusty(ctx, s, rt)
	if err != nil && failure.KindOf(err) != failure.Timeout {
		err = explain(s, rt, err)
	}
	return objects, err
}

// finish does what the toolkit does after kustomize: it checks the objects,
// decrypts them, substitutes variables, and sets the common metadata.
func finish(ctx context.Context, objects []*unstructured.Unstructured, recipe build.Recipe) ([]*unstructured.Unstructured, error) {
	objects, err := onlyObjects(objects, recipe.Path)
	if err != nil {
		return nil, err
	}
	if objects, err = decrypt(ctx, objects, recipe); err != nil {
		return nil, err
	}
	if recipe.SubstituteStrategy == kustomizev1.SubstituteStrategyAlways || len(recipe.Substitute) > 0 {
		vars, err := subst.New(recipe.Substitute, recipe.Origins, recipe.StrictSubstitution)
		if err != nil {
			return nil, err
		}
		for _, u := range objects {
			if err := vars.Apply(u); err != nil {
				return nil, err
			}
		}
		// A variable can stand in a name.
		if objects, err = onlyObjects(objects, recipe.Path); err != nil {
			return nil, err
		}
	}
	for _, u := range objects {
		setMetadata(u, recipe.CommonMetadata)
	}
	if len(objects) == 0 {
		return nil, &failure.Error{Op: "build", Kind: failure.Invalid, Object: "path " + quoted(recipe.Path), Err: build.ErrEmpty}
	}
	return objects, nil
}

// onlyObjects drops what is configuration of kustomize itself, and fails for
// what is no object or is there twice.
func onlyObjects(objects []*unstructured.Unstructured, path string) ([]*unstructured.Unstructured, error) {
	kept := objects[:0]
	seen := make(map[object.ID]struct{}, len(objects))
	for _, u := range objects {
		gvk := u.GroupVersionKind()
		if gvk.Group == "kustomize.config.k8s.io" && gvk.Kind == "Kustomization" {
			continue
		}
		if u.GetName() == "" || gvk.Kind == "" || u.GetAPIVersion() == "" {
			return nil, incomplete("path "+quoted(path), u)
		}
		id := object.IDOf(u)
		if _, twice := seen[id]; twice {
			return nil, invalid("path "+quoted(path), "", errors.New(id.String()+" is there twice, in two API versions or by substitution"), "keep one of them")
		}
		seen[id] = struct{}{}
		kept = append(kept, u)
	}
	return kept, nil
}

func setMetadata(u *unstructured.Unstructured, common *kustomizev1.CommonMetadata) {
	if common == nil {
		return
	}
	if len(common.Labels) > 0 {
		u.SetLabels(over(u.GetLabels(), common.Labels))
	}
	if len(common.Annotations) > 0 {
		u.SetAnnotations(over(u.GetAnnotations(), common.Annotations))
	}
}
