package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/report"
)

// FieldManager is the field manager of everything that Kustomizations deliver:
// the toolkit's own, so that a cluster changes engine without double ownership.
const FieldManager = "kustomize-controller"

// AnnotationApprovedPlan approves the deletions with the digest that it holds.
const AnnotationApprovedPlan = "fleet.bowline.dev/approved-plan"

// UnitOf reads a Kustomization as a unit of the pipeline, as far as it says itself
// what it is; see Prepare. Fields that this
// version does not act on are an error of kind failure.Unsupported: leaving one
// out silently could deploy the wrong thing.
func UnitOf(k *kustomizev1.Kustomization, budget plan.Budget, allowRemoteBases bool) (pipeline.Unit, error) {
	if err := supported(k); err != nil {
		return pipeline.Unit{}, err
	}
	ignored, err := ignore.New(k.Spec.Ignore)
	if err != nil {
		return pipeline.Unit{}, err
	}
	inventory, _ := report.Entries(k.Status.Inventory)
	recipe := build.RecipeOf(k)
	recipe.AllowRemoteBases = allowRemoteBases
	return pipeline.Unit{
		Name: client.ObjectKeyFromObject(k), Recipe: recipe, Replace: k.Spec.Force, Ignore: ignored,
		Inventory: inventory,
		Policy:    plan.Policy{Prune: k.Spec.Prune, Budget: budget, Approved: k.Annotations[AnnotationApprovedPlan]},
	}, nil
}

// sourceKinds are the kinds of sources that are supported.
var sourceKinds = []string{sourcev1.GitRepositoryKind, sourcev1.OCIRepositoryKind, sourcev1.BucketKind, sourcev1.ExternalArtifactKind}

func supported(k *kustomizev1.Kustomization) error {
	var fields []string
	note := func(set bool, field string) {
		if set {
			fields = append(fields, field)
		}
	}
	note(!slices.Contains(sourceKinds, k.Spec.SourceRef.Kind), "spec.sourceRef.kind "+k.Spec.SourceRef.Kind)
	return unsupported(fields)
}

func unsupported(fields []string) error {
	if len(fields) == 0 {
		return nil
	}
	return &failure.Error{Op: "reconcile", Kind: failure.Unsupported,
		Err:    fmt.Errorf("not supported yet: %s", strings.Join(fields, ", ")),
		Remedy: "remove the field, or leave this object to an engine that supports it; what was delivered stays as it is"}
}

// sourceOf returns the key of the Kustomization's source.
func sourceOf(k *kustomizev1.Kustomization) sourceKey {
	namespace := k.Spec.SourceRef.Namespace
	if namespace == "" {
		namespace = k.Namespace
	}
	return sourceKey{Kind: k.Spec.SourceRef.Kind, NamespacedName: types.NamespacedName{Namespace: namespace, Name: k.Spec.SourceRef.Name}}
}

// healthOf returns the objects whose health the Kustomization waits for, and
// those among them that it may not deliver itself.
func healthOf(ctx context.Context, kinds *kube.Resources, k *kustomizev1.Kustomization, wants []plan.Want) (ids []object.ID, refs []observe.Reference, err error) {
	if k.Spec.Wait {
		for _, w := range wants {
			if w.Mode != plan.Ignore {
				ids = append(ids, w.ID)
			}
			if w.Mode == plan.IfNotPresent {
				refs = append(refs, observe.Reference{ID: w.ID, Version: w.Version})
			}
		}
		return ids, refs, nil
	}
	for i, c := range k.Spec.HealthChecks {
		ref, err := referenceOf(ctx, kinds, c, k.Namespace)
		if err != nil {
			kind := failure.KindOf(err)
			if kind == "" {
				kind = failure.Invalid
			}
			return nil, nil, &failure.Error{Op: "check health", Kind: kind, Object: fmt.Sprintf("spec.healthChecks[%d]", i), Err: err}
		}
		ids = append(ids, ref.ID)
		refs = append(refs, ref)
	}
	return ids, refs, nil
}

// Defaults of a reference: the version is the one that the toolkit takes where
// none is given, and the namespace that of the Kustomization.
func referenceOf(ctx context.Context, kinds *kube.Resources, c meta.NamespacedObjectKindReference, namespace string) (observe.Reference, error) {
	if c.APIVersion == "" {
		c.APIVersion = "apps/v1"
	}
	gv, err := schema.ParseGroupVersion(c.APIVersion)
	if err != nil {
		return observe.Reference{}, err
	}
	if c.Kind == "" || c.Name == "" {
		return observe.Reference{}, errors.New("kind and name are needed")
	}
	resource, err := kinds.Of(ctx, gv.WithKind(c.Kind))
	if err != nil {
		return observe.Reference{}, err
	}
	switch {
	case !resource.Namespaced:
		c.Namespace = ""
	case c.Namespace == "":
		c.Namespace = namespace
	}
	return observe.Reference{
		ID: object.ID{Group: gv.Group, Kind: c.Kind, Namespace: c.Namespace, Name: c.Name}, Version: gv.Version,
	}, nil
}
