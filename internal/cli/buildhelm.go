package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/spf13/pflag"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
	"github.com/bowline-dev/bowline/internal/source/local"
)

// chartOptions stand in for what a HelmRelease needs besides its repository.
type chartOptions struct {
	file        string
	chart       string
	kubeVersion string
	apiVersions []string
}

func (o *chartOptions) add(f *pflag.FlagSet) {
	o.addFiles(f, "the folder that spec.chart names in a GitRepository")
	f.StringVar(&o.kubeVersion, "kube-version", "", "Kubernetes `version` that the templates of a chart see")
	f.StringSliceVar(&o.apiVersions, "api-versions", nil, "API `versions` that they see besides those of Kubernetes itself, as GROUP/VERSION or GROUP/VERSION/KIND")
}

// addFiles adds the flags that say where the HelmRelease and its chart are, with what the
// chart is otherwise.
func (o *chartOptions) addFiles(f *pflag.FlagSet, otherwise string) {
	f.StringVar(&o.file, "helmrelease-file", "", "`file` that holds the HelmRelease")
	f.StringVar(&o.chart, "chart", "", "`path` of the chart of a HelmRelease, a folder or an archive (default: "+otherwise+")")
}

// buildRelease prints the objects that a HelmRelease installs: definitions, the manifest
// and hooks.
func (a *app) buildRelease(ctx context.Context, o *buildOptions, name string) error {
	root, err := sourceRoot(o.path)
	if err != nil {
		return err
	}
	hr, err := findDeclared[*helmv2.HelmRelease](helmReleaseKind(), root, o.charts.file, o.namespace, name)
	if err != nil {
		return err
	}
	hr.Namespace = cmp.Or(hr.Namespace, o.namespace)
	req, err := o.request(ctx, root, hr)
	if err != nil {
		return err
	}
	rendering, err := helm.Render(ctx, req)
	if err != nil {
		return err
	}
	objects := rendering.Definitions
	if !req.DefinitionsFirst {
		objects = nil
	}
	manifests := []string{rendering.Manifest}
	for _, hook := range rendering.Hooks {
		manifests = append(manifests, "# Source: "+hook.Path+"\n"+hook.Manifest)
	}
	for _, manifest := range manifests {
		more, err := helm.Objects(manifest)
		if err != nil {
			return err
		}
		objects = append(objects, more...)
	}
	return a.printManifests(objects, req.Values.Secrets(), o.showSecrets)
}

// request is what the engine would render for an installation.
func (o *buildOptions) request(ctx context.Context, root string, hr *helmv2.HelmRelease) (helm.Request, error) {
	chart, err := o.charts.load(root, hr) //nolint:contextcheck // a file of this machine is read, within limits
	if err != nil {
		return helm.Request{}, err
	}
	objects, err := readObjects(o.variables.files, hr.Namespace)
	if err != nil {
		return helm.Request{}, err
	}
	values, err := helm.ReadValues(ctx, objects, hr.Namespace, hr.GetValues(), hr.Spec.ValuesFrom)
	if errors.Is(err, failure.Of(failure.NotFound)) {
		err = fmt.Errorf("%w; a build does not ask the cluster: pass --substitute-from with a file that holds it", err)
	}
	if err != nil {
		return helm.Request{}, err
	}
	caps := helm.DefaultCapabilities()
	if o.charts.kubeVersion != "" || len(o.charts.apiVersions) > 0 {
		if caps, err = caps.With(o.charts.kubeVersion, o.charts.apiVersions); err != nil {
			return helm.Request{}, err
		}
	}
	return helm.Request{
		Chart: chart, Values: values, Capabilities: caps, Lookup: helm.NoCluster{},
		Release:    helm.Release{Name: release.ShortName(hr.GetReleaseName()), Namespace: hr.GetReleaseNamespace(), Revision: 1},
		PostRender: helm.PostRenderOf(hr),
		SkipSchema: hr.GetInstall().DisableSchemaValidation, DefinitionsFirst: controller.PolicyOfDefinitions(hr, helmv2.ReleaseActionInstall) != helmv2.Skip,
	}, nil
}

// load reads the chart from where the flag says, or from the repository itself.
func (o *chartOptions) load(root string, hr *helmv2.HelmRelease) (*helm.Chart, error) {
	fail := func(kind failure.Kind, err error, remedy string) (*helm.Chart, error) {
		return nil, &failure.Error{Op: "find the chart of", Object: "helmrelease/" + hr.Name, Kind: kind, Err: err, Remedy: remedy}
	}
	at := o.chart
	if at == "" {
		from := hr.Spec.Chart
		if from == nil || from.Spec.SourceRef.Kind != sourcev1.GitRepositoryKind {
			return fail(failure.NotFound, errors.New("it is not in the repository"), "pass --chart with its folder or its archive, as helm pull gets it")
		}
		if len(from.Spec.ValuesFiles) > 0 {
			return fail(failure.Unsupported, errors.New("spec.chart.spec.valuesFiles become part of the chart when it is packaged"), "pass --chart with the packaged chart")
		}
		at = filepath.Join(root, filepath.FromSlash(filepath.Clean("/"+from.Spec.Chart)))
	}
	info, err := os.Stat(at)
	if err != nil {
		return fail(failure.NotFound, fmt.Errorf("no file or folder %s", at), "pass --chart with its folder or its archive")
	}
	if info.IsDir() {
		tree, err := local.Open(at, local.Options{})
		if err != nil {
			return nil, err
		}
		defer func() { _ = tree.Close() }()
		return helm.Load(source.Artifact{Revision: at, Digest: at, Tree: tree}, "")
	}
	file, err := os.Open(at)
	if err != nil {
		return fail(failure.Denied, err, "")
	}
	defer func() { _ = file.Close() }()
	artifact, err := archive.Read(file, archive.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	artifact.Revision = at
	return helm.Load(artifact, "")
}
