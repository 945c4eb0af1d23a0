package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/release"
)

// render renders the chart as the revision of this number. Without an origin the objects
// get no labels of the HelmRelease.
func (r *helmReleaseRun) render(ctx context.Context, revision int, upgrade, origin bool) (helm.Rendering, error) {
	able, err := r.memory.storage.capabilities(ctx, r.target.Cluster, r.now)
	if err != nil {
		return helm.Rendering{}, err
	}
	req := helm.Request{
		Chart: r.wanted.chart, Values: r.wanted.values, Capabilities: able, Lookup: lookupIn(r.target.Cluster),
		Release:    helm.Release{Name: r.memory.key.Name, Namespace: r.h.GetReleaseNamespace(), Revision: revision, IsUpgrade: upgrade},
		PostRender: helm.PostRenderOf(r.h),
	}
	if !origin {
		req.PostRender.Origin = types.NamespacedName{}
	}
	if upgrade {
		u := r.h.GetUpgrade()
		req.SkipSchema, req.DefinitionsFirst = u.DisableSchemaValidation, r.policyOfDefinitions(helmv2.ReleaseActionUpgrade) != helmv2.Skip
		if u.PreserveValues {
			if req.Reuse, err = r.deployed(ctx); err != nil {
				return helm.Rendering{}, err
			}
		}
	} else {
		i := r.h.GetInstall()
		req.SkipSchema, req.DefinitionsFirst = i.DisableSchemaValidation, r.policyOfDefinitions(helmv2.ReleaseActionInstall) != helmv2.Skip
	}
	if req.Ended, err = r.renders.begin(renderKey{r.unit(), req.Digest()}); err != nil {
		return helm.Rendering{}, err
	}
	timed, cancel := context.WithTimeout(ctx, min(renderPatience, r.timeoutOf(helmv2.ReleaseActionUpgrade)))
	defer cancel()
	r.rendered.Inc()
	return helm.Render(timed, req)
}

// deployed returns the release that is deployed, and nil where none is.
func (r *helmReleaseRun) deployed(ctx context.Context) (*release.Release, error) {
	record, err := r.memory.store.Deployed(ctx, r.memory.key.Name)
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return record.Release, nil
}

func (r *helmReleaseRun) policyOfDefinitions(action helmv2.ReleaseAction) helmv2.CRDsPolicy {
	return PolicyOfDefinitions(r.h, action)
}

// PolicyOfDefinitions says what is done with the chart's own folder of definitions.
func PolicyOfDefinitions(h *helmv2.HelmRelease, action helmv2.ReleaseAction) helmv2.CRDsPolicy {
	switch action {
	case helmv2.ReleaseActionInstall:
		i := h.GetInstall()
		if i.CRDs == "" && i.SkipCRDs {
			return helmv2.Skip
		}
		return cmp.Or(i.CRDs, helmv2.Create)
	case helmv2.ReleaseActionUpgrade:
		return cmp.Or(h.GetUpgrade().CRDs, helmv2.Skip)
	default:
		return helmv2.Skip
	}
}

// comparable returns the digest of what would be rendered, where a release that somebody
// else made may be just that; "" where nothing has to be compared.
func (r *helmReleaseRun) comparable(ctx context.Context) (string, error) {
	last := r.memory.last
	if last == nil || last.Verified || last.Status != common.StatusDeployed || last.Marks.Of(r.unit()) || r.forced() ||
		last.Chart != r.wanted.chart.Name() || last.ChartVersion != r.wanted.chart.Version() ||
		last.Snapshot == nil || last.Snapshot.ConfigDigest != r.wanted.config {
		return "", nil
	}
	rendered, err := r.render(ctx, last.Version, last.Version > 1, false)
	if err != nil {
		return "", err
	}
	return release.ManifestDigest(&helmrelease.Release{Manifest: rendered.Manifest, Hooks: rendered.Hooks}), nil
}

// make renders the next revision.
func (r *helmReleaseRun) make(ctx context.Context, action helmv2.ReleaseAction) (*release.Record, error) {
	m := r.memory
	upgrade := action == helmv2.ReleaseActionUpgrade
	next := 1
	if len(m.seen) > 0 {
		next = m.seen[0].Version + 1
	}
	rendered, err := r.render(ctx, next, upgrade, true)
	if err != nil {
		return nil, err
	}
	if _, err := helm.Objects(rendered.Manifest); err != nil {
		return nil, err
	}
	rel := &release.Release{
		Name: m.key.Name, Namespace: r.h.GetReleaseNamespace(), Chart: rendered.Chart, Config: rendered.Config,
		Manifest: rendered.Manifest, Hooks: rendered.Hooks, Info: &helmrelease.Info{Notes: rendered.Notes},
	}
	if upgrade && m.last != nil && m.last.Snapshot != nil {
		rel.Info.FirstDeployed = m.last.Snapshot.FirstDeployed.Time
	}
	return release.Fresh(rel, release.Marks{Unit: r.unit().String(), Inputs: r.wanted.digest, Action: action}, m.seen, r.now), nil
}

// unitOf is what the pipeline delivers of a revision: the objects of its manifest, besides
// what the status says is there.
func (r *helmReleaseRun) unitOf(version int, digest string, have []plan.Entry, manifest func(context.Context) (*release.Release, error)) (pipeline.Unit, error) {
	ignored, err := ignore.ForRelease(r.h.GetDriftDetection().Ignore)
	if err != nil {
		return pipeline.Unit{}, err
	}
	return pipeline.Unit{
		Name: r.unit(), Group: object.HelmGroup, Ignore: ignored, Inventory: have, Secrets: r.secrets,
		Policy: plan.Policy{Prune: true, Budget: r.budget, Approved: r.h.Annotations[AnnotationApprovedPlan]},
		Made: &pipeline.Made{Digest: fmt.Sprintf("%s.v%d %s", r.memory.key.Name, version, digest), Objects: func(ctx context.Context) ([]*unstructured.Unstructured, error) {
			rel, err := manifest(ctx)
			if err != nil {
				return nil, err
			}
			return objectsOf(rel)
		}},
	}, nil
}

// objectsOf returns the objects of a revision as Helm would send them.
func objectsOf(rel *release.Release) ([]*unstructured.Unstructured, error) {
	objects, err := helm.Objects(rel.Manifest)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.GetNamespace() == "" {
			o.SetNamespace(rel.Namespace)
		}
		release.Dress(o, rel.Name, rel.Namespace)
	}
	return objects, nil
}

// timeoutOf returns how long one thing of an action may take.
func (r *helmReleaseRun) timeoutOf(action helmv2.ReleaseAction) time.Duration {
	all := r.h.GetTimeout()
	switch action {
	case helmv2.ReleaseActionInstall:
		return r.h.GetInstall().GetTimeout(all).Duration
	case helmv2.ReleaseActionUpgrade:
		return r.h.GetUpgrade().GetTimeout(all).Duration
	case helmv2.ReleaseActionRollback:
		return r.h.GetRollback().GetTimeout(all).Duration
	case helmv2.ReleaseActionUninstall, helmv2.ReleaseActionUninstallRemediation:
		return r.h.GetUninstall().GetTimeout(all).Duration
	default:
		return all.Duration
	}
}

// transient reports whether an error says nothing of the release: the cluster did not
// answer, and will.
func transient(err error) bool {
	kinds := []failure.Kind{failure.Unavailable, failure.Timeout}
	return slices.ContainsFunc(kinds, func(k failure.Kind) bool { return errors.Is(err, failure.Of(k)) }) || errors.Is(err, errConnecting)
}
