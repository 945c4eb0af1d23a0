// Package helm is the build step of charts: from a chart, values and what a cluster
// can do to the manifest, the hooks, the definitions and the notes of a release. It
// asks Helm's own packages, so that a manifest made here is the one that Helm and the
// toolkit would keep in the release storage, to the letter; it never applies anything.
//
// A rendering is not pure as other builds are: templates may use the time, random values
// and, with lookup, the cluster. So who asks renders once for every release and keeps
// the manifest; Request.Digest says whether there is a reason to render again.
package helm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	release "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Release says for which release a chart is rendered: what templates see as .Release.
type Release struct {
	// Name is the name in the release storage, at most 53 bytes long.
	Name string
	// Namespace is where the release is installed.
	Namespace string
	// Revision is the number in the history that the rendering will have, from 1.
	Revision int
	// IsUpgrade says that it follows another revision.
	IsUpgrade bool
}

// Request is all that decides a rendering, besides the cluster where lookup is used.
type Request struct {
	Chart   *Chart
	Values  Values
	Release Release
	// Capabilities are what the target cluster can do.
	Capabilities *Capabilities
	// Lookup answers the template function of that name. With nil, a template that
	// calls it fails with failure.Unsupported; NoCluster answers that there is nothing.
	Lookup Lookup
	// PostRender is what is done to the manifest afterwards.
	PostRender PostRender
	// SkipSchema leaves the values unchecked.
	SkipSchema bool
	// DefinitionsFirst says that the definitions in the chart's crds folders will be on
	// the cluster by the time that its objects are applied, so that templates see their
	// API versions.
	DefinitionsFirst bool
	// Reuse is the release whose values, and those of its chart, are kept where Values
	// says nothing else; nil where none are.
	Reuse *release.Release
	// Ended is called once the render has ended, which may be after Render returned; may
	// be nil.
	Ended func()
}

// Rendering is what a chart means.
type Rendering struct {
	// Chart is the chart as a release keeps it, the values that it imports from its
	// subcharts included. It is the caller's own.
	Chart *chartv2.Chart
	// Config is what a release keeps as the values given to the chart.
	Config map[string]any
	// Manifest is what a release keeps of all objects that are no hooks, in the order in
	// which Helm installs, each with the file that it comes from.
	Manifest string
	// Hooks are the objects with Helm's hook annotation, in the order of their kinds.
	// Who runs them sorts by weight.
	Hooks []*release.Hook
	// Notes is what NOTES.txt says.
	Notes string
	// Definitions are the objects in the crds folders of the chart and its subcharts.
	Definitions []*unstructured.Unstructured
	// UsedLookup says that a template asked the cluster.
	UsedLookup bool
}

// Render renders a chart. It may be called by many goroutines at once, also with one
// chart.
//
// Errors are of type *failure.Error, print as one line without any value of a Secret,
// and are of kind Invalid, but for Timeout when ctx ended, and for what Lookup failed
// with. A chart that renders to nothing is no error. Render returns when ctx ends; a
// template that does not end by itself goes on in the background until it does.
func Render(ctx context.Context, req Request) (Rendering, error) {
	secrets := &secrets{texts: req.Values.secrets}
	type outcome struct {
		rendering Rendering
		err       error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				// The libraries below have panicked on odd input before.
				o = outcome{err: req.invalid("", fmt.Errorf("the chart cannot be made sense of: %v", p), "")}
			}
			if req.Ended != nil {
				req.Ended() // before anybody can ask for the same again
			}
			done <- o
		}()
		o.rendering, o.err = render(ctx, req, secrets)
	}()
	select {
	case o := <-done:
		return o.rendering, secrets.conceal(o.err)
	case <-ctx.Done():
		return Rendering{}, req.timeout(ctx)
	}
}

// render is Render without its guards.
func render(ctx context.Context, req Request, secrets *secrets) (Rendering, error) {
	if err := req.check(); err != nil {
		return Rendering{}, err
	}
	chart, config, err := req.prepare(secrets)
	if err != nil {
		return Rendering{}, err
	}
	caps := req.capabilities(chart)
	if err := kubeVersionFits(chart, caps); err != nil {
		return Rendering{}, req.invalid("", err, "upgrade the cluster, or use a version of the chart for it")
	}
	values, err := req.templateValues(chart, config, caps)
	if err != nil {
		return Rendering{}, err
	}
	files, usedLookup, err := req.execute(ctx, chart, values, secrets)
	if err != nil {
		return Rendering{}, err
	}
	notes := takeNotes(chart, files)
	if files, err = req.postRender(ctx, files); err != nil {
		return Rendering{}, err
	}
	hooks, manifest, err := compose(files)
	if err != nil {
		return Rendering{}, req.explainYAML(err)
	}
	definitions, err := req.definitions(chart)
	if err != nil {
		return Rendering{}, err
	}
	return Rendering{
		Chart: chart, Config: config, Manifest: manifest, Hooks: hooks, Notes: notes,
		Definitions: definitions, UsedLookup: usedLookup,
	}, nil
}

// check refuses what cannot be rendered at all.
func (req Request) check() error {
	if err := chartutil.ValidateReleaseName(req.Release.Name); err != nil {
		return req.invalid("", fmt.Errorf("the release name %q: %w", req.Release.Name, err), "set spec.releaseName")
	}
	return nil
}

// prepare returns a copy of the chart in which dependencies are chosen and their values
// imported, and the values given to it.
func (req Request) prepare(secrets *secrets) (*chartv2.Chart, map[string]any, error) {
	chart := req.Chart.copied()
	config := req.Values.copied()
	if req.Reuse != nil {
		secrets.add(textsOf(req.Reuse.Config, nil)...)
		if err := reuse(chart, config, req.Reuse); err != nil {
			return nil, nil, req.invalid("", err, "")
		}
	}
	if err := chartutil.ProcessDependencies(chart, config); err != nil {
		return nil, nil, req.mismatch(err)
	}
	if missing := missingDependencies(chart); len(missing) > 0 {
		return nil, nil, req.invalid("", fmt.Errorf("its archive lacks the charts that Chart.yaml depends on: %s", strings.Join(missing, ", ")),
			"package the chart with its dependencies")
	}
	return chart, config, nil
}

func kubeVersionFits(chart *chartv2.Chart, caps *common.Capabilities) error {
	want := chart.Metadata.KubeVersion
	if want == "" || chartutil.IsCompatibleRange(want, caps.KubeVersion.String()) {
		return nil
	}
	return fmt.Errorf("it wants Kubernetes %s and the cluster is %s", want, caps.KubeVersion.Version)
}

// invalid is the failure of a chart or of what it was given. place may be empty.
func (req Request) invalid(place string, err error, remedy string) error {
	return &failure.Error{Op: "render", Kind: failure.Invalid, Object: req.at(place), Err: err, Remedy: remedy}
}

// at names the chart, and a place in it.
func (req Request) at(place string) string {
	name := "chart " + req.Chart.Name() + " " + req.Chart.Version()
	if place != "" {
		name += ", " + place
	}
	return name
}

func (req Request) timeout(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("its templates did not end in time: %w", err)
	}
	return &failure.Error{Op: "render", Kind: failure.Timeout, Object: req.at(""), Err: err, Remedy: "look for loops in its templates"}
}

// secrets are texts that no message may hold: values from Secrets.
type secrets struct{ texts []string }

func (s *secrets) add(texts ...string) { s.texts = append(s.texts, texts...) }

func (s *secrets) conceal(err error) error { return object.ConcealError(err, s.texts) }
