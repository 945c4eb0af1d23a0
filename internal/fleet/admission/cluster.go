package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// cluster judges a FleetCluster.
func (j *judge) cluster(ctx context.Context, before, c *v1alpha1.FleetCluster) (verdict, error) {
	var v verdict
	if before != nil {
		v.problems = unmovable(before, c)
	}
	if c.Spec.Template == nil {
		problems, err := CheckCluster(ctx, j.compiler, c, nil)
		v.problems = append(v.problems, problems...)
		return v, err
	}
	fits, err := j.fits(ctx, j.client, c)
	if err == nil && (len(fits.problems) > 0 || len(fits.warnings) > 0) {
		// The cache may be behind: template and cluster can come with one commit.
		fits, err = j.fits(ctx, j.live, c)
	}
	v.problems, v.warnings, v.remedy = append(v.problems, fits.problems...), fits.warnings, fits.remedy
	return v, err
}

// fits holds a cluster against its template, as a reader knows it.
func (j *judge) fits(ctx context.Context, from client.Reader, c *v1alpha1.FleetCluster) (verdict, error) {
	var v verdict
	key := client.ObjectKey{Namespace: c.Namespace, Name: c.Spec.Template.Name}
	t := &v1alpha1.ClusterTemplate{}
	switch err := from.Get(ctx, key, t); {
	case apierrors.IsNotFound(err):
		v.warnings = append(v.warnings, fmt.Sprintf("there is no ClusterTemplate %s in the namespace %s yet: the cluster waits for it, and its parameters are not checked", key.Name, key.Namespace))
		t = nil
	case err != nil:
		return v, fmt.Errorf("read ClusterTemplate %s: %w", key, err)
	case j.compiler.CheckTemplate(ctx, t) != nil:
		v.warnings = append(v.warnings, fmt.Sprintf("ClusterTemplate %s cannot be used as it is: the cluster waits for it, and its parameters are not checked", t.Name))
		t = nil
	}
	problems, err := CheckCluster(ctx, j.compiler, c, t)
	if t != nil && len(problems) > 0 && strings.HasPrefix(problems[0].Path, "spec.template") {
		v.remedy = "see ClusterTemplate " + t.Name
	}
	v.problems = problems
	return v, err
}

// unmovable refuses what a cluster that is there cannot become: what was made from a template would be deleted, or a
// cluster that somebody else made would get a twin.
func unmovable(before, c *v1alpha1.FleetCluster) template.FieldErrors {
	there := before.Status.Incarnation != "" || apimeta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ProvisionedCondition)
	switch {
	case !there || (before.Spec.Template == nil) == (c.Spec.Template == nil):
		return nil
	case c.Spec.Template == nil:
		return template.FieldErrors{{Path: "spec.template", Message: "the cluster was made from ClusterTemplate " + before.Spec.Template.Name +
			" and would be deleted without it; keep it, or delete this FleetCluster and declare another"}}
	}
	return template.FieldErrors{{Path: "spec.template", Message: "the cluster is there already and was not made from a template; declare another FleetCluster, with another name"}}
}

// CheckCluster returns all that is wrong with a FleetCluster and the template that it is made from; nil where that is not known. The error
// is for a context that ended.
func CheckCluster(ctx context.Context, compiler *template.Compiler, c *v1alpha1.FleetCluster, t *v1alpha1.ClusterTemplate) (template.FieldErrors, error) {
	var all template.FieldErrors
	origins := 0
	for _, given := range []bool{c.Spec.Template != nil, c.Spec.KubeConfig != nil, c.Spec.Join != nil} {
		if given {
			origins++
		}
	}
	if origins != 1 {
		all = append(all, template.FieldError{Path: "spec", Message: "exactly one of template, kubeConfig and join says how the cluster comes to be"})
	}
	var parameters map[string]any
	known := c.Spec.Template == nil
	if t != nil && c.Spec.Template != nil {
		problems, err := rendered(ctx, compiler, c, t)
		if err != nil {
			return nil, err
		}
		all = append(all, problems...)
		parameters, err = compiler.Parameters(ctx, t, c)
		known = err == nil
	}
	return append(all, syncs(ctx, compiler, c, parameters, known)...), ctx.Err()
}

// rendered returns why the template gives no objects for the cluster.
func rendered(ctx context.Context, compiler *template.Compiler, c *v1alpha1.FleetCluster, t *v1alpha1.ClusterTemplate) (template.FieldErrors, error) {
	_, err := compiler.Render(ctx, t, c)
	var r *template.RenderError
	switch {
	case err == nil:
		return nil, nil
	case ctx.Err() != nil || !errors.As(err, &r):
		return nil, err
	case r.Reason == v1alpha1.InvalidParametersReason:
		return r.FieldErrors, nil
	}
	var all template.FieldErrors
	for _, p := range r.FieldErrors { // the fields are the template's
		all = append(all, template.FieldError{Path: "spec.template", Message: "ClusterTemplate " + t.Name + " does not take these parameters: " + p.Error()})
	}
	return all, nil
}

// syncs checks what the cluster syncs. Where its parameters are not known, expressions are only compiled.
func syncs(ctx context.Context, compiler *template.Compiler, c *v1alpha1.FleetCluster, parameters map[string]any, known bool) template.FieldErrors {
	vars := template.ClusterVariables(c, parameters)
	names := slices.Sorted(maps.Keys(vars))
	var all template.FieldErrors
	for i := range c.Spec.Sync {
		s := &c.Spec.Sync[i]
		for _, f := range []struct{ name, text string }{
			{"path", s.Path}, {"branch", s.Branch}, {"namespace", s.Namespace}, {"serviceAccountName", s.ServiceAccountName},
		} {
			at := fmt.Sprintf("spec.sync[%d].%s", i, f.name)
			if !known {
				all = append(all, fieldsOf(compiler.Check(at, f.text, names...))...) //nolint:contextcheck // it only compiles
				continue
			}
			value, err := compiler.ExpandString(ctx, at, f.text, vars)
			all = append(all, fieldsOf(err)...)
			if err == nil && f.name == "namespace" && value != "" && len(validation.IsDNS1123Label(value)) > 0 {
				all = append(all, template.FieldError{Path: at, Message: fmt.Sprintf("%q is no name of a namespace", value)})
			}
		}
	}
	return all
}

// fieldsOf returns what an error of a Compiler says of fields.
func fieldsOf(err error) template.FieldErrors {
	var all template.FieldErrors
	if err == nil || errors.As(err, &all) {
		return all
	}
	return template.FieldErrors{{Message: err.Error()}}
}
