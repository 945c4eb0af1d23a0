package cli

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
)

// declareFleet writes what ties the cluster to the repository.
func (b *bringUp) declareFleet(ctx context.Context) (string, error) {
	url, path := b.settings.URL, b.options.path
	if b.options.repo != "" {
		url = b.options.repo
	} else if path == "" {
		path = b.example().Path
	}
	if path == "" {
		path = "./"
	}
	if !strings.HasPrefix(path, "./") {
		path = "./" + strings.TrimPrefix(path, "/")
	}
	for _, u := range fleetObjects(url, b.options.branch, path) {
		err := b.cluster.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("bowline-up"), client.ForceOwnership)
		if err != nil {
			return "", err
		}
	}
	return "Kustomization/" + platformNamespace + "/" + fleetName + " delivers " + path + " of " + url, b.remember()
}

// fleetObjects are the namespace, the source and the one Kustomization from
// which everything else follows.
func fleetObjects(url, branch, path string) []*unstructured.Unstructured {
	namespace := fleetObject("v1", "Namespace", platformNamespace, "", nil)
	source := fleetObject("source.toolkit.fluxcd.io/v1", "GitRepository", fleetName, platformNamespace, map[string]any{
		"url":      url,
		"ref":      map[string]any{"branch": branch},
		"interval": "1m",
	})
	fleet := fleetObject("kustomize.toolkit.fluxcd.io/v1", "Kustomization", fleetName, platformNamespace, map[string]any{
		"sourceRef": map[string]any{"kind": "GitRepository", "name": fleetName},
		"path":      path,
		"interval":  "10m",
		"prune":     true,
		"wait":      true,
	})
	return []*unstructured.Unstructured{namespace, source, fleet}
}

func fleetObject(apiVersion, kind, name, namespace string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	u.SetName(name)
	u.SetNamespace(namespace)
	if spec != nil {
		u.Object["spec"] = spec
	}
	return u
}

// left names what a plane leaves on a cluster that is not its own.
func left() string {
	var names []string
	for _, u := range fleetObjects("", "", "") {
		names = append(names, object.IDOf(u).String())
	}
	return strings.Join(names, ", ")
}
