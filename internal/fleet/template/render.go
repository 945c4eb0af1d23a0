package template

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/expr"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Render returns the objects of the cluster, in the order of the template. The error is a failure.Error with a
// RenderError as its cause, whose Reason is that of the condition Rendered.
func (c *Compiler) Render(ctx context.Context, t *fleetv1.ClusterTemplate, cluster *fleetv1.FleetCluster) ([]*unstructured.Unstructured, error) {
	if cluster.Spec.Template == nil {
		return nil, refuse(cluster, fleetv1.RenderFailedReason, "", FieldError{"spec.template", "is missing: the cluster is not made from a template"})
	}
	compiled, err := c.compiled(ctx, t)
	if err != nil {
		return nil, unusable(t, cluster, err)
	}
	parameters, err := compiled.parametersOf(ctx, t, cluster)
	if err != nil {
		return nil, err
	}
	r := &rendering{run: run{variables: ClusterVariables(cluster, parameters)}, namespace: cluster.Namespace, made: map[object.ID]string{}}
	for _, e := range compiled.objects {
		if err := r.entry(ctx, e); err != nil {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, &failure.Error{
			Op: "render", Kind: failure.Timeout, Object: "FleetCluster/" + cluster.Namespace + "/" + cluster.Name, Remedy: "it is tried again",
			Err: &RenderError{Reason: fleetv1.RenderFailedReason, FieldErrors: r.problems},
		}
	case len(r.problems) > 0:
		return nil, refuse(cluster, fleetv1.RenderFailedReason, "change the parameters, or "+nameOf(t), r.problems...)
	case len(r.objects) == 0:
		return nil, refuse(cluster, fleetv1.NothingRenderedReason, "change the parameters, or the conditions in "+nameOf(t),
			FieldError{Path: "spec.objects", Message: "every object is left out by its when or forEach"})
	}
	return r.objects, nil
}

// rendering makes the objects of one cluster.
type rendering struct {
	run
	namespace string
	objects   []*unstructured.Unstructured
	made      map[object.ID]string // and from where
}

// entry makes none, one or many objects. The error is errOver.
func (r *rendering) entry(ctx context.Context, e entry) error {
	if e.forEach == nil {
		return r.object(ctx, e)
	}
	at := child(e.path, "forEach")
	value, err := r.value(ctx, at, e.forEach)
	if errors.Is(err, expr.ErrAbsent) {
		r.problem(at, "%s gives no value; say what else with .orValue([])", quote(e.forEach.String()))
		return nil
	}
	if err != nil {
		return err
	}
	list, ok := value.([]any)
	if !ok {
		if _, known := value.(failed); !known {
			r.problem(at, "%s gives %s and not a list", quote(e.forEach.String()), typeOf(value))
		}
		return nil
	}
	outer := r.variables
	defer func() { r.variables, r.where = outer, "" }()
	for i, item := range list {
		r.variables = map[string]any{"cluster": outer["cluster"], "parameters": outer["parameters"], "item": item, "index": int64(i)}
		r.where = fmt.Sprintf(" (at item %d of forEach)", i)
		if err := r.object(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// object makes one object, unless when leaves it out.
func (r *rendering) object(ctx context.Context, e entry) error {
	if len(r.problems) >= maxProblems {
		return errOver
	}
	if e.when != nil {
		if holds, err := r.condition(ctx, child(e.path, "when"), e.when); !holds {
			return err
		}
	}
	if len(r.objects) == MaxObjects {
		r.problem(e.path, "there would be more than %d objects; make less of them", MaxObjects)
		return errOver
	}
	at := child(e.path, "template")
	if err := r.grow(at, e.size); err != nil {
		return err
	}
	before := len(r.problems)
	body, err := e.body.expand(ctx, &r.run)
	if err != nil || len(r.problems) > before {
		return err
	}
	if u := r.accept(at, body.(map[string]any)); u != nil {
		r.objects = append(r.objects, u)
	}
	return nil
}

// accept puts the object into the namespace of the cluster; nil where it is refused.
func (r *rendering) accept(at string, body map[string]any) *unstructured.Unstructured {
	metadata, ok := body["metadata"].(map[string]any)
	if !ok {
		r.problem(at+".metadata", "is %s and not a map", typeOf(body["metadata"]))
		return nil
	}
	if !r.named(at+".apiVersion", body["apiVersion"]) || !r.named(at+".kind", body["kind"]) || !r.named(at+".metadata.name", metadata["name"]) {
		return nil
	}
	if given, ok := metadata["namespace"]; ok && given != "" && given != r.namespace {
		r.problem(at+".metadata.namespace", "is %v, and the objects of a cluster live in the namespace of its FleetCluster, %s; leave it out", given, r.namespace)
		return nil
	}
	u := &unstructured.Unstructured{Object: body}
	if u.IsList() {
		r.problem(at, "is a list of objects; make an entry for each, or use forEach")
		return nil
	}
	u.SetNamespace(r.namespace)
	id := object.IDOf(u)
	if first, ok := r.made[id]; ok {
		r.problem(at+".metadata.name", "%s is made by %s already; give one of them another name", id, first)
		return nil
	}
	r.made[id] = at + r.where
	return u
}

// named says whether the value is one of those strings without which there is no object.
func (r *rendering) named(at string, value any) bool {
	switch {
	case value == "":
		r.problem(at, "is empty")
	case typeOf(value) != typeOf(""):
		r.problem(at, "is %s and not a string", typeOf(value))
	default:
		return true
	}
	return false
}

// parametersOf checks the parameters of the cluster.
func (t *Template) parametersOf(ctx context.Context, of *fleetv1.ClusterTemplate, cluster *fleetv1.FleetCluster) (map[string]any, error) {
	var raw []byte
	if ref := cluster.Spec.Template; ref != nil && ref.Parameters != nil {
		raw = ref.Parameters.Raw
	}
	values, problems := t.schema.check(ctx, raw)
	if len(problems) > 0 {
		return nil, refuse(cluster, fleetv1.InvalidParametersReason, "see the schema in "+nameOf(of), problems...)
	}
	return values, nil
}

// unusable is why a cluster cannot be made: its template is wrong.
func unusable(t *fleetv1.ClusterTemplate, cluster *fleetv1.FleetCluster, err error) error {
	var problems FieldErrors
	errors.As(err, &problems)
	return refuse(cluster, fleetv1.RenderFailedReason, "correct "+nameOf(t), problems...)
}
