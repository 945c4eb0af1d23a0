package cli

import (
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kindOf describes the kind of the Go types T and its list; words are the plural and other names.
func kindOf[T client.Object](title string, gvk schema.GroupVersionKind, one T, list client.ObjectList, of func(T) state, words ...string) kind {
	return kind{
		name: strings.ToLower(gvk.Kind), title: title, words: words, gvk: gvk, state: typed(of),
		newObject: func() client.Object { return one.DeepCopyObject().(client.Object) },
		newList:   func() client.ObjectList { return list.DeepCopyObject().(client.ObjectList) },
	}
}

// sourceKinds are the kinds that others are delivered from.
func sourceKinds() []kind {
	of := sourcev1.GroupVersion.WithKind
	return []kind{
		gitRepositoryKind(),
		kindOf("source oci", of(sourcev1.OCIRepositoryKind), &sourcev1.OCIRepository{}, &sourcev1.OCIRepositoryList{}, func(r *sourcev1.OCIRepository) state {
			return state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
				conditions: r.Status.Conditions, from: r.Spec.URL, revision: revisionOf(r.Status.Artifact)}
		}, "ocirepositories", "ocirepo", "ocirepos"),
		kindOf("source bucket", of(sourcev1.BucketKind), &sourcev1.Bucket{}, &sourcev1.BucketList{}, func(b *sourcev1.Bucket) state {
			return state{suspended: b.Spec.Suspend, handled: b.Status.LastHandledReconcileAt, observed: b.Status.ObservedGeneration,
				conditions: b.Status.Conditions, from: b.Spec.Endpoint + "/" + b.Spec.BucketName, revision: revisionOf(b.Status.Artifact)}
		}, "buckets"),
		kindOf("source helm", of(sourcev1.HelmRepositoryKind), &sourcev1.HelmRepository{}, &sourcev1.HelmRepositoryList{}, func(r *sourcev1.HelmRepository) state {
			return state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
				conditions: r.Status.Conditions, from: r.Spec.URL, revision: revisionOf(r.Status.Artifact),
				static: r.Spec.Type == sourcev1.HelmRepositoryTypeOCI}
		}, "helmrepositories", "helmrepo", "helmrepos"),
		helmChartKind(),
	}
}

func gitRepositoryKind() kind {
	return kindOf("source git", sourcev1.GroupVersion.WithKind(sourcev1.GitRepositoryKind), &sourcev1.GitRepository{}, &sourcev1.GitRepositoryList{}, func(r *sourcev1.GitRepository) state {
		return state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt, observed: r.Status.ObservedGeneration,
			conditions: r.Status.Conditions, from: r.Spec.URL, revision: revisionOf(r.Status.Artifact)}
	}, "gitrepositories", "gitrepo", "gitrepos")
}

func helmChartKind() kind {
	return kindOf("source chart", sourcev1.GroupVersion.WithKind(sourcev1.HelmChartKind), &sourcev1.HelmChart{}, &sourcev1.HelmChartList{}, func(c *sourcev1.HelmChart) state {
		return state{suspended: c.Spec.Suspend, handled: c.Status.LastHandledReconcileAt, observed: c.Status.ObservedGeneration,
			conditions: c.Status.Conditions, from: c.Spec.SourceRef.Kind + "/" + c.Spec.SourceRef.Name + " " + c.Spec.Chart,
			revision: revisionOf(c.Status.Artifact)}
	}, "helmcharts", "hc", "hcs")
}

func revisionOf(a *meta.Artifact) string {
	if a == nil {
		return ""
	}
	return a.Revision
}

func kustomizationKind() kind {
	return kindOf("kustomization", kustomizev1.GroupVersion.WithKind(kustomizev1.KustomizationKind),
		&kustomizev1.Kustomization{}, &kustomizev1.KustomizationList{}, kustomizationState, "kustomizations", "ks")
}

func kustomizationState(k *kustomizev1.Kustomization) state {
	return state{suspended: k.Spec.Suspend, handled: k.Status.LastHandledReconcileAt,
		observed: k.Status.ObservedGeneration, conditions: k.Status.Conditions,
		revision: k.Status.LastAppliedRevision, from: k.Spec.SourceRef.String() + " " + k.Spec.Path}
}

func helmReleaseKind() kind {
	return kindOf("helmrelease", helmv2.GroupVersion.WithKind(helmv2.HelmReleaseKind),
		&helmv2.HelmRelease{}, &helmv2.HelmReleaseList{}, helmReleaseState, "helmreleases", "hr", "hrs")
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
