package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/failure"
)

// sourceRef is a source on the cluster.
type sourceRef struct {
	kind kind
	name string
	// cluster is the connection, scoped to the namespace of the source.
	cluster *cluster
}

// sourcesOf returns what an object is delivered from, in the order in which it has to
// be fetched: a chart after the repository that it is taken from.
func (c *cluster) sourcesOf(ctx context.Context, k kind, name string) ([]sourceRef, error) {
	obj, err := c.get(ctx, k, name)
	if err != nil {
		return nil, err
	}
	switch o := obj.(type) {
	case *kustomizev1.Kustomization:
		return c.refer(o.Spec.SourceRef.Kind, o.Spec.SourceRef.Name, o.Spec.SourceRef.Namespace)
	case *sourcev1.HelmChart:
		return c.refer(o.Spec.SourceRef.Kind, o.Spec.SourceRef.Name, "")
	case *helmv2.HelmRelease:
		return c.sourcesOfRelease(ctx, o)
	}
	return nil, &failure.Error{Op: "read flag", Object: "--with-source", Kind: failure.Invalid,
		Err: fmt.Errorf("a %s has no source of its own", k.name)}
}

func (c *cluster) sourcesOfRelease(ctx context.Context, r *helmv2.HelmRelease) ([]sourceRef, error) {
	if ref := r.Spec.ChartRef; ref != nil {
		if ref.Kind != sourcev1.HelmChartKind {
			return c.refer(ref.Kind, ref.Name, ref.Namespace)
		}
		scoped := c.in(ref.Namespace)
		out, err := scoped.sourcesOf(ctx, helmChartKind(), ref.Name)
		return append(out, sourceRef{helmChartKind(), ref.Name, scoped}), err
	}
	if r.Spec.Chart == nil {
		return nil, &failure.Error{Op: "read", Object: "helmrelease/" + r.Name, Kind: failure.Invalid, Err: errors.New("it names no chart")}
	}
	ref := r.Spec.Chart.Spec.SourceRef
	out, err := c.refer(ref.Kind, ref.Name, ref.Namespace)
	if err != nil {
		return nil, err
	}
	// The chart that the engine made of the template is where its source is.
	return append(out, sourceRef{helmChartKind(), r.GetHelmChartName(), c.in(ref.Namespace)}), nil
}

// in is the connection scoped to another namespace, unless that is empty.
func (c *cluster) in(namespace string) *cluster {
	scoped := *c
	scoped.namespace = cmp.Or(namespace, c.namespace)
	return &scoped
}

func (c *cluster) refer(kindName, name, namespace string) ([]sourceRef, error) {
	for _, k := range sourceKinds() {
		if k.gvk.Kind == kindName {
			return []sourceRef{{k, name, c.in(namespace)}}, nil
		}
	}
	return nil, &failure.Error{Op: "reconcile", Object: kindName + "/" + name, Kind: failure.Unsupported,
		Err: errors.New("it is made by somebody else and cannot be asked to be fetched"), Remedy: "leave out --with-source"}
}
