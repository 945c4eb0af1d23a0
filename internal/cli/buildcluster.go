package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
	"github.com/bowline-dev/bowline/internal/source/local"
)

// buildClusters prints the objects that FleetClusters are made of, as a hub would make them: the one of this name, or
// all in the file that is given.
func (a *app) buildClusters(ctx context.Context, o *buildOptions, name string) error {
	root, err := sourceRoot(o.path)
	if err != nil {
		return err
	}
	tree, err := local.Open(root, local.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = tree.Close() }()
	c := &fleetCheck{compiler: template.NewCompiler(), tree: tree}
	if o.clusterFile == "" {
		c.objects, err = fleetTree(tree)
	} else {
		c.objects, err = readFleetFile(o.clusterFile)
	}
	if err != nil {
		return err
	}
	chosen, err := o.choose(c.objects, name)
	if err != nil {
		return err
	}
	for _, object := range chosen {
		if err := a.buildCluster(ctx, c, object, o); err != nil {
			return err
		}
	}
	return nil
}

func readFleetFile(path string) ([]declaredObject, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, &failure.Error{Op: "read", Object: path, Kind: failure.NotFound, Err: errors.Unwrap(err), Remedy: "correct --cluster-file"}
	}
	return fleetFile(path, raw), nil
}

// choose returns the FleetClusters that are asked for.
func (o *buildOptions) choose(all []declaredObject, name string) ([]declaredObject, error) {
	chosen := slices.DeleteFunc(slices.Clone(all), func(f declaredObject) bool {
		return f.GetKind() != fleetv1.FleetClusterKind || name != "" && f.GetName() != name ||
			o.namespace != "" && f.GetNamespace() != "" && f.GetNamespace() != o.namespace
	})
	fail := &failure.Error{Op: "find", Object: strings.TrimSuffix("cluster/"+name, "/")}
	switch {
	case len(chosen) == 0 && o.clusterFile != "":
		fail.Kind, fail.Err = failure.NotFound, fmt.Errorf("%s declares none", o.clusterFile)
	case len(chosen) == 0:
		fail.Kind, fail.Err, fail.Remedy = failure.NotFound, errors.New("nothing in the repository declares it"), "name the file with --cluster-file"
	case len(chosen) > 1 && name != "":
		fail.Kind, fail.Err, fail.Remedy = failure.Invalid, fmt.Errorf("it is declared more than once, in %s and %s", chosen[0].at(""), chosen[1].at("")), "choose with --cluster-file or -n"
	default:
		return chosen, nil
	}
	return nil, fail
}

func (a *app) buildCluster(ctx context.Context, c *fleetCheck, o declaredObject, options *buildOptions) error {
	if o.GetNamespace() == "" {
		o.SetNamespace(options.namespace)
	}
	cluster := &fleetv1.FleetCluster{}
	if err := o.typed(cluster); err != nil {
		return err
	}
	if cluster.Spec.Template == nil {
		return o.problem(template.FieldError{Path: "spec", Message: "the cluster is not made from a template: there is nothing to build"})
	}
	t, err := c.templateOf(cluster)
	switch {
	case err != nil:
		return err
	case t == nil:
		return o.problem(template.FieldError{Path: "spec.template.name", Message: fmt.Sprintf("nothing in the repository declares a ClusterTemplate %s; give the repository with --path", cluster.Spec.Template.Name)})
	}
	if err := c.compiler.CheckTemplate(ctx, t); err != nil {
		return errors.Join(c.declaration(t).problems(err)...)
	}
	if err := c.cluster(ctx, o); err != nil {
		return err
	}
	objects, err := c.compiler.Render(ctx, t, cluster)
	if err != nil {
		return err
	}
	return a.printManifests(objects, nil, options.showSecrets)
}

// declaration finds where a template stands.
func (c *fleetCheck) declaration(t *fleetv1.ClusterTemplate) declaredObject {
	for _, o := range slices.Concat(c.objects, c.elsewhere) {
		if o.GetKind() == fleetv1.ClusterTemplateKind && o.GetName() == t.Name && o.GetNamespace() == t.Namespace {
			return o
		}
	}
	return declaredObject{}
}
