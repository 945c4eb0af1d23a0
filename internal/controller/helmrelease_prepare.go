package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/source"
)

// wanted is what a HelmRelease wants to be released.
type wanted struct {
	chart  *helm.Chart
	values helm.Values
	// config, renderers and metadata are the digests of the values, the post renderers and
	// the common metadata, as statuses hold them.
	config, renderers, metadata string
	// ociDigest is the digest in the revision of the chart's artifact; empty where there is none.
	ociDigest string
	// digest identifies all of it.
	digest string
}

// reasonValuesError is the toolkit's reason for values that cannot be put together.
const reasonValuesError = "ValuesError"

// prepare puts together what is to be released: the chart and its values.
func (r *helmReleaseRun) prepare(ctx context.Context, key sourceKey, artifact source.Artifact) (reason string, err error) {
	values, err := r.valuesFrom(ctx, r.references.reader(releaseUser(r.unit())))
	if err != nil {
		return reasonValuesError, err
	}
	chart, err := r.parsed.load(r.unit(), artifact)
	if err != nil {
		return helmv2.ArtifactFailedReason, err
	}
	var ociDigest string
	if key.Kind != sourcev1.HelmChartKind {
		if chart, ociDigest, err = chart.AtRevision(artifact.Revision); err != nil {
			return helmv2.ArtifactFailedReason, err
		}
	}
	r.wants(chart, values, ociDigest)
	return "", nil
}

// valuesFrom reads the values, of which those from Secrets are in no message from then on.
func (r *helmReleaseRun) valuesFrom(ctx context.Context, reader client.Reader) (helm.Values, error) {
	values, err := helm.ReadValues(ctx, reader, r.h.Namespace, r.h.GetValues(), r.h.Spec.ValuesFrom)
	if err == nil {
		r.secrets = values.Secrets()
	}
	return values, err
}

// wants notes what is to be released.
func (r *helmReleaseRun) wants(chart *helm.Chart, values helm.Values, ociDigest string) {
	w := &wanted{chart: chart, values: values, ociDigest: ociDigest}
	w.config = w.values.Digest()
	w.renderers = helm.PostRenderersDigest(r.h.Spec.PostRenderers)
	w.metadata = helm.CommonMetadataDigest(r.h.Spec.CommonMetadata)
	w.digest = digestOfStrings(w.chart.Name(), w.chart.Version(), w.config, w.renderers, w.metadata, string(r.h.Spec.PostRenderStrategy))
	r.wanted = w
}

// digestOfStrings identifies a list of strings.
func digestOfStrings(parts ...string) string {
	data, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings can always be encoded
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// parsedCharts keeps the charts that units use, each read once for all of them.
type parsedCharts struct {
	charts helm.Charts

	mu   sync.Mutex
	used map[types.NamespacedName]usedChart // guarded by mu
}

// usedChart is the chart that a unit uses, with the digest of the artifact it is from.
type usedChart struct {
	digest string
	chart  *helm.Chart
}

func newParsedCharts() *parsedCharts {
	return &parsedCharts{used: map[types.NamespacedName]usedChart{}}
}

// load returns the chart of an artifact for a unit, which uses no other from then on.
func (p *parsedCharts) load(unit types.NamespacedName, artifact source.Artifact) (*helm.Chart, error) {
	p.mu.Lock()
	used, ok := p.used[unit]
	p.mu.Unlock()
	if ok && used.digest == artifact.Digest {
		return used.chart, nil
	}
	chart, err := p.charts.Load(artifact, "")
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[unit] = usedChart{artifact.Digest, chart}
	return chart, nil
}

func (p *parsedCharts) forget(unit types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, unit)
}

// forced reports whether a release is asked for although nothing changed.
func (r *helmReleaseRun) forced() bool {
	return r.asks(meta.ForceRequestAnnotation, r.h.Status.LastHandledForceAt)
}
