package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/source/archive"
)

// artifactPatience is how long a preview waits for a served artifact.
const artifactPatience = 20 * time.Second

// diffRelease prints what the engine would do about a HelmRelease.
func (a *app) diffRelease(ctx context.Context, o *diffOptions, name string) (changes bool, err error) {
	budget, err := plan.ParseBudget(o.budget)
	if err != nil {
		return false, err
	}
	c, err := o.connect()
	if err != nil {
		return false, err
	}
	h, err := c.releaseToPreview(ctx, o, name)
	if err != nil {
		return false, err
	}
	options := controller.ReleaseOptions{Budget: budget, Upgrade: o.charts.chart != "" || o.path != "" || o.revision != ""}
	if options.Chart, options.OCIDigest, err = c.chartToPreview(ctx, o, h); err != nil {
		return false, err
	}
	target, err := c.releaseTarget(ctx, h)
	if err != nil {
		return false, err
	}
	p, err := controller.PreviewRelease(ctx, c, h, target, options)
	if err != nil {
		return false, err
	}
	return a.printRelease(h, p)
}

// printRelease prints the revision that would be made, its hooks around its objects, and
// reports whether anything would change.
func (a *app) printRelease(h *helmv2.HelmRelease, p controller.ReleasePreview) (changes bool, err error) {
	d := p.Decision
	unasked := p.Record != nil && !slices.Contains([]release.Step{release.Install, release.Upgrade, release.Resume}, d.Step)
	if p.Record != nil {
		chart := p.Record.Chart.Metadata
		printf(a.Out, "# %s: revision %d of release %s/%s, chart %s %s (%s)\n",
			p.Action, p.Record.Version, p.Record.Namespace, p.Record.Name, chart.Name, chart.Version, d.Reason)
	}
	a.printHooks(p.Before, "pre-"+string(p.Action))
	shown, err := a.printDifferences(previewed{plan: p.Plan, differences: p.Differences, secrets: p.Secrets})
	a.printHooks(p.After, "post-"+string(p.Action))
	switch {
	case unasked && d.Step == release.None:
		printf(a.Err, "the engine would release this only under another version of the chart than the one that is released\n")
	case d.Step == release.Wait || d.Step == release.Exhausted || d.Step == release.Test:
		printf(a.Err, "helmrelease/%s as it is now: %s (%s): %s\n", h.Name, d.Step, d.Reason, object.Conceal(d.Message, p.Secrets))
	}
	if p.Plan != nil && len(p.Plan.Held) > 0 {
		printf(a.Err, "%s; these deletions would wait for approval\n", p.Plan.HeldReason)
	}
	return shown > 0 || p.Record != nil && !unasked, err
}

func (a *app) printHooks(hooks []*helmrelease.Hook, event string) {
	for _, hook := range hooks {
		printf(a.Out, "# hook %s, weight %d: %s/%s\n", event, hook.Weight, hook.Kind, hook.Name)
	}
}

// releaseToPreview is the HelmRelease of the cluster, with what a file says instead of it.
func (c *cluster) releaseToPreview(ctx context.Context, o *diffOptions, name string) (*helmv2.HelmRelease, error) {
	live := &helmv2.HelmRelease{}
	err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, live)
	if err != nil && (o.charts.file == "" || !apierrors.IsNotFound(err)) {
		return nil, notFound(helmReleaseKind(), c.namespace, name, err)
	}
	if o.charts.file == "" {
		return live, nil
	}
	h, err := findDeclared[*helmv2.HelmRelease](helmReleaseKind(), "", o.charts.file, c.namespace, name)
	if err != nil {
		return nil, err
	}
	h.Namespace, h.UID, h.Status = c.namespace, live.UID, live.Status
	h.Generation = live.Generation + 1 // as if it was applied
	return h, nil
}

// releaseTarget is where the HelmRelease is delivered to, with the rights that it is
// delivered with; see target.
func (c *cluster) releaseTarget(ctx context.Context, h *helmv2.HelmRelease) (pipeline.Target, error) {
	config := c.config
	if h.Spec.KubeConfig != nil {
		var err error
		if config, err = controller.RemoteConfigOfRelease(ctx, c, h); err != nil {
			return pipeline.Target{}, err
		}
	}
	return targetOn(config, types.NamespacedName{Namespace: h.Namespace, Name: h.Spec.ServiceAccountName}, func(kc *kube.Cluster) pipeline.Target {
		return controller.ReleaseTarget(ctx, kc, previewRequests)
	})
}

// chartToPreview is the chart that the flags name, or else the one that the engine has.
func (c *cluster) chartToPreview(ctx context.Context, o *diffOptions, h *helmv2.HelmRelease) (chart *helm.Chart, ociDigest string, err error) {
	inGit := h.Spec.Chart != nil && h.Spec.Chart.Spec.SourceRef.Kind == sourcev1.GitRepositoryKind
	switch {
	case o.charts.chart != "":
		chart, err = o.charts.load("", h) //nolint:contextcheck // a file of this machine is read, within limits
		return chart, "", err
	case o.path == "" && o.revision == "":
		return c.servedChart(ctx, h)
	case !inGit:
		return nil, "", noChart(h, failure.Invalid, errors.New("it is not in a GitRepository, which --path and --revision are about"))
	case len(h.Spec.Chart.Spec.ValuesFiles) > 0:
		return nil, "", noChart(h, failure.Unsupported, errors.New("spec.chart.spec.valuesFiles become part of the chart when it is packaged"))
	case o.path != "":
		root, err := sourceRoot(o.path)
		if err != nil {
			return nil, "", err
		}
		chart, err = o.charts.load(root, h) //nolint:contextcheck // as above
		return chart, "", err
	default:
		chart, err = c.chartAt(ctx, o, h)
		return chart, "", err
	}
}

// chartAt is the chart in another revision of its repository.
func (c *cluster) chartAt(ctx context.Context, o *diffOptions, h *helmv2.HelmRelease) (*helm.Chart, error) {
	ref := h.Spec.Chart.Spec.SourceRef
	scoped := c.in(cmp.Or(ref.Namespace, h.Namespace))
	g, err := getAs[*sourcev1.GitRepository](ctx, scoped, gitRepositoryKind(), ref.Name)
	if err != nil {
		return nil, err
	}
	artifact, done, err := scoped.fetched(ctx, g, o.revision, o.fetcher(), 0)
	if err != nil {
		return nil, err
	}
	defer done()
	return helm.Load(artifact, h.Spec.Chart.Spec.Chart)
}

// servedChart is the chart as it is served to whoever asks for its artifact.
func (c *cluster) servedChart(ctx context.Context, h *helmv2.HelmRelease) (chart *helm.Chart, ociDigest string, err error) {
	var from interface {
		client.Object
		GetArtifact() *meta.Artifact
	}
	kindName, namespace, name := controller.ChartSource(h)
	switch kindName {
	case sourcev1.HelmChartKind:
		from = &sourcev1.HelmChart{}
	case sourcev1.OCIRepositoryKind:
		from = &sourcev1.OCIRepository{}
	case sourcev1.ExternalArtifactKind:
		from = &sourcev1.ExternalArtifact{}
	default:
		return nil, "", noChart(h, failure.Unsupported, fmt.Errorf("charts are not taken from the kind %s", kindName))
	}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, from); err != nil {
		kind := failure.Unavailable
		if apierrors.IsNotFound(err) {
			kind = failure.NotFound
		}
		return nil, "", noChart(h, kind, err)
	}
	if made, ok := from.(*sourcev1.HelmChart); ok && h.Spec.Chart != nil && !describes(h.Spec.Chart.Spec, made) {
		return nil, "", noChart(h, failure.NotFound, fmt.Errorf("HelmChart %s/%s is not what spec.chart says, so that no artifact is there for it yet", namespace, name))
	}
	published := from.GetArtifact()
	if published == nil {
		return nil, "", noChart(h, failure.NotFound, fmt.Errorf("%s %s/%s has no artifact yet", kindName, namespace, name))
	}
	timed, cancel := context.WithTimeout(ctx, artifactPatience)
	defer cancel()
	artifact, err := archive.Fetch(timed, http.DefaultTransport, published.URL, published.Digest, archive.Limits{})
	if err != nil {
		return nil, "", noChart(h, failure.KindOf(err), err)
	}
	artifact.Revision = published.Revision
	if chart, err = helm.Load(artifact, ""); err != nil || kindName == sourcev1.HelmChartKind {
		return chart, "", err
	}
	return chart.AtRevision(artifact.Revision)
}

// describes reports whether a HelmChart is made of what a HelmRelease says now.
func describes(t helmv2.HelmChartTemplateSpec, made *sourcev1.HelmChart) bool {
	const anyVersion = "*"
	s := made.Spec
	return t.Chart == s.Chart && cmp.Or(t.Version, anyVersion) == cmp.Or(s.Version, anyVersion) &&
		t.SourceRef.Kind == s.SourceRef.Kind && t.SourceRef.Name == s.SourceRef.Name && slices.Equal(t.ValuesFiles, s.ValuesFiles)
}

func noChart(h *helmv2.HelmRelease, kind failure.Kind, err error) error {
	return &failure.Error{Op: "get the chart of", Object: "helmrelease/" + h.Name, Kind: kind, Err: err,
		Remedy: "pass --chart with its folder or its archive, as helm pull gets it"}
}
