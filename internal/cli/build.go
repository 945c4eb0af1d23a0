package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source/local"
)

type buildOptions struct {
	namespace         string
	path              string
	kustomizationFile string
	clusterFile       string
	showSecrets       bool
	noRemoteBases     bool
	variables         variableOptions
	charts            chartOptions
}

func (a *app) buildCommand() *cobra.Command {
	o := &buildOptions{}
	cmd := &cobra.Command{
		Use:     "build (PATH | kustomization NAME | helmrelease NAME | cluster NAME) [flags]",
		Short:   "Print what files mean, without a cluster",
		GroupID: groupPreview,
		Long: "Print the objects that a folder means, or that a Kustomization delivers from it, without a\n" +
			"cluster. The Kustomization is read from --kustomization-file or found in the repository by its\n" +
			"name. Values of Secrets are shown as hashes that mean nothing outside of this output.\n\n" +
			"A HelmRelease is rendered as for its first installation: definitions, objects, and then hooks.\n" +
			"Its chart is in the repository, or given with --chart; lookup finds nothing.\n\n" +
			"A cluster is rendered from its ClusterTemplate as a hub would do it; both are in the repository. What\n" +
			"is wrong with FleetClusters, ClusterTemplates and Placements is told with its file, line and field,\n" +
			"also where a Kustomization or folder delivers them. --cluster-file without a name builds all in that file.\n\n" +
			"The ConfigMaps and Secrets that postBuild.substituteFrom or valuesFrom names are on a cluster:\n" +
			"give them with --substitute-from, or variables one by one with --var. bowline diff reads them itself.",
		Example: "  bowline build ./apps/shop/production\n" +
			"  bowline build kustomization addons-metrics --path .\n" +
			"  bowline build kustomization shop --path ~/src/shop --kustomization-file shop.yaml\n" +
			"  bowline build kustomization shop --substitute-from cluster-vars.yaml --var region=eu\n" +
			"  bowline build helmrelease podinfo --chart podinfo-6.11.1.tgz\n" +
			"  bowline build cluster blue --path ~/src/fleet\n" +
			"  bowline build cluster -f clusters/blue.yaml",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.build(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "`namespace` of the object, where the repository holds several of one name")
	f.StringVar(&o.path, "path", "", "root `folder` of the source (default: the Git repository around the current folder)")
	f.StringVar(&o.kustomizationFile, "kustomization-file", "", "`file` that holds the Kustomization")
	f.StringVarP(&o.clusterFile, "cluster-file", "f", "", "`file` that holds the FleetCluster")
	f.BoolVar(&o.showSecrets, "show-secrets", false, "print the values of Secrets")
	f.BoolVar(&o.noRemoteBases, "no-remote-bases", true, "refuse kustomize bases that are named by URL")
	o.variables.add(f)
	o.charts.add(f)
	return cmd
}

func (a *app) build(ctx context.Context, o *buildOptions, args []string) error {
	if len(args) == 1 && o.clusterFile != "" {
		if k, names, err := parseObjects(args); err == nil && k.gvk == fleetClusterKind().gvk && len(names) == 0 {
			return a.buildClusters(ctx, o, "")
		}
	}
	if len(args) == 2 {
		switch k, name, err := parseObject(args); {
		case err != nil:
		case k.gvk == helmReleaseKind().gvk:
			return a.buildRelease(ctx, o, name)
		case k.gvk == fleetClusterKind().gvk:
			return a.buildClusters(ctx, o, name)
		}
	}
	if o.clusterFile != "" {
		return &failure.Error{Op: "read flags", Kind: failure.Invalid, Err: errors.New("--cluster-file goes with: cluster [NAME]")}
	}
	root, recipe, secrets, err := o.recipe(ctx, args)
	if err != nil {
		return err
	}
	recipe.AllowRemoteBases = !o.noRemoteBases
	recipe.LeaveEncrypted = true // the keys are on the cluster
	tree, err := local.Open(root, local.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = tree.Close() }()
	result, err := fleetChecked(kustomize.Build)(ctx, tree, recipe)
	if err != nil {
		return err
	}
	return a.printManifests(result.Objects, secrets, o.showSecrets)
}

// recipe finds out what to build from which folder, and with which secret values.
func (o *buildOptions) recipe(ctx context.Context, args []string) (root string, r build.Recipe, secrets []string, err error) {
	if len(args) == 1 {
		if o.path != "" || o.kustomizationFile != "" {
			return "", r, nil, &failure.Error{Op: "read flags", Kind: failure.Invalid,
				Err: errors.New("--path and --kustomization-file go with: kustomization NAME")}
		}
		if root, r, err = folderRecipe(args[0]); err == nil {
			r, err = o.variables.folder(r)
		}
		return root, r, secrets, err
	}
	k, name, err := parseObject(args)
	if err != nil {
		return "", r, nil, err
	}
	if k.gvk != kustomizationKind().gvk {
		return "", r, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid, Err: fmt.Errorf("a %s cannot be built", k.name)}
	}
	if root, err = sourceRoot(o.path); err != nil {
		return "", r, nil, err
	}
	ks, err := findDeclared[*kustomizev1.Kustomization](kustomizationKind(), root, o.kustomizationFile, o.namespace, name)
	if err != nil {
		return "", r, nil, err
	}
	r, secrets, err = o.variables.prepare(ctx, ks, controller.UnitOptions{Budget: plan.DefaultBudget(), AllowRemoteBases: !o.noRemoteBases})
	return root, r, secrets, err
}

// folderRecipe builds a folder by itself; what it refers to may lie anywhere in
// the repository around it.
func folderRecipe(path string) (root string, r build.Recipe, err error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", r, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", r, &failure.Error{Op: "read", Object: path, Kind: failure.NotFound, Err: errors.New("no such folder")}
	}
	root = repositoryAround(dir)
	rel, err := filepath.Rel(root, dir)
	return root, build.Recipe{Path: filepath.ToSlash(rel)}, err
}

// sourceRoot is the folder given, or the repository around the current one.
func sourceRoot(path string) (string, error) {
	dir, err := filepath.Abs(path)
	if err != nil || path == "" {
		return repositoryAround(dir), err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", &failure.Error{Op: "read flag", Object: "--path", Kind: failure.NotFound, Err: fmt.Errorf("no folder %s", path)}
	}
	return dir, nil
}

// repositoryAround is the nearest folder at or above dir that holds a Git
// repository, or dir itself.
func repositoryAround(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, ".git")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

func (a *app) printManifests(objects []*unstructured.Unstructured, secrets []string, showSecrets bool) error {
	key := redactionKey()
	for _, u := range objects {
		if !showSecrets {
			u = object.Redact(u, key)
		}
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			return fmt.Errorf("print %s: %w", object.IDOf(u), err)
		}
		if !showSecrets {
			text = []byte(object.Conceal(string(text), secrets))
		}
		printf(a.Out, "---\n%s", text)
	}
	return nil
}

// redactionKey makes hashes of secrets comparable within one output only.
func redactionKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}
