package cli

import (
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func gitRepositoryKind() kind {
	return kind{
		name:      "gitrepository",
		title:     "source git",
		words:     []string{"gitrepositories", "gitrepo", "gitrepos"},
		gvk:       sourcev1.GroupVersion.WithKind(sourcev1.GitRepositoryKind),
		newObject: func() client.Object { return &sourcev1.GitRepository{} },
		newList:   func() client.ObjectList { return &sourcev1.GitRepositoryList{} },
		state: typed(func(r *sourcev1.GitRepository) state {
			return state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
				conditions: r.Status.Conditions, from: r.Spec.URL, revision: revisionOf(r.Status.Artifact)}
		}),
	}
}

func ociRepositoryKind() kind {
	return kind{
		name:      "ocirepository",
		title:     "source oci",
		words:     []string{"ocirepositories", "ocirepo", "ocirepos"},
		gvk:       sourcev1.GroupVersion.WithKind(sourcev1.OCIRepositoryKind),
		newObject: func() client.Object { return &sourcev1.OCIRepository{} },
		newList:   func() client.ObjectList { return &sourcev1.OCIRepositoryList{} },
		state: typed(func(r *sourcev1.OCIRepository) state {
			return state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
				conditions: r.Status.Conditions, from: r.Spec.URL, revision: revisionOf(r.Status.Artifact)}
		}),
	}
}

func bucketKind() kind {
	return kind{
		name:      "bucket",
		title:     "source bucket",
		words:     []string{"buckets"},
		gvk:       sourcev1.GroupVersion.WithKind(sourcev1.BucketKind),
		newObject: func() client.Object { return &sourcev1.Bucket{} },
		newList:   func() client.ObjectList { return &sourcev1.BucketList{} },
		state: typed(func(b *sourcev1.Bucket) state {
			return state{suspended: b.Spec.Suspend, handled: b.Status.LastHandledReconcileAt, observed: b.Status.ObservedGeneration,
				conditions: b.Status.Conditions, from: b.Spec.Endpoint + "/" + b.Spec.BucketName, revision: revisionOf(b.Status.Artifact)}
		}),
	}
}

func helmRepositoryKind() kind {
	return kind{
		name:      "helmrepository",
		title:     "source helm",
		words:     []string{"helmrepositories", "helmrepo", "helmrepos"},
		gvk:       sourcev1.GroupVersion.WithKind(sourcev1.HelmRepositoryKind),
		newObject: func() client.Object { return &sourcev1.HelmRepository{} },
		newList:   func() client.ObjectList { return &sourcev1.HelmRepositoryList{} },
		state: typed(func(r *sourcev1.HelmRepository) state {
			return state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
				conditions: r.Status.Conditions, from: r.Spec.URL, revision: revisionOf(r.Status.Artifact),
				static: r.Spec.Type == sourcev1.HelmRepositoryTypeOCI}
		}),
	}
}

func helmChartKind() kind {
	return kind{
		name:      "helmchart",
		title:     "source chart",
		words:     []string{"helmcharts", "hc", "hcs"},
		gvk:       sourcev1.GroupVersion.WithKind(sourcev1.HelmChartKind),
		newObject: func() client.Object { return &sourcev1.HelmChart{} },
		newList:   func() client.ObjectList { return &sourcev1.HelmChartList{} },
		state: typed(func(c *sourcev1.HelmChart) state {
			return state{suspended: c.Spec.Suspend, handled: c.Status.LastHandledReconcileAt, observed: c.Status.ObservedGeneration,
				conditions: c.Status.Conditions, from: c.Spec.SourceRef.Kind + "/" + c.Spec.SourceRef.Name + " " + c.Spec.Chart,
				revision: revisionOf(c.Status.Artifact)}
		}),
	}
}

func revisionOf(a *meta.Artifact) string {
	if a == nil {
		return ""
	}
	return a.Revision
}

func kustomizationKind() kind {
	return kind{
		name:      "kustomization",
		title:     "kustomization",
		words:     []string{"kustomizations", "ks"},
		gvk:       kustomizev1.GroupVersion.WithKind(kustomizev1.KustomizationKind),
		newObject: func() client.Object { return &kustomizev1.Kustomization{} },
		newList:   func() client.ObjectList { return &kustomizev1.KustomizationList{} },
		state:     typed(kustomizationState),
	}
}

func kustomizationState(k *kustomizev1.Kustomization) state {
	return state{suspended: k.Spec.Suspend, handled: k.Status.LastHandledReconcileAt,
		observed: k.Status.ObservedGeneration, conditions: k.Status.Conditions,
		revision: k.Status.LastAppliedRevision, from: k.Spec.SourceRef.String() + " " + k.Spec.Path}
}

func helmReleaseKind() kind {
	return kind{
		name:      "helmrelease",
		title:     "helmrelease",
		words:     []string{"helmreleases", "hr", "hrs"},
		gvk:       helmv2.GroupVersion.WithKind(helmv2.HelmReleaseKind),
		newObject: func() client.Object { return &helmv2.HelmRelease{} },
		newList:   func() client.ObjectList { return &helmv2.HelmReleaseList{} },
		state:     typed(helmReleaseState),
	}
}

// helmReleaseState takes the version of the chart for the revision: that of the newest
// release, and before there is one that of the last attempt.
func helmReleaseState(r *helmv2.HelmRelease) state {
	s := state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
		conditions: r.Status.Conditions, revision: r.Status.LastAttemptedRevision}
	if latest := r.Status.History.Latest(); latest != nil {
		s.revision = latest.ChartVersion
	}
	switch {
	case r.Spec.ChartRef != nil:
		s.from = r.Spec.ChartRef.Kind + "/" + r.Spec.ChartRef.Name
	case r.Spec.Chart != nil:
		ref := r.Spec.Chart.Spec.SourceRef
		s.from = strings.TrimSpace(ref.Kind + "/" + ref.Name + " " + r.Spec.Chart.Spec.Chart)
	}
	return s
}
