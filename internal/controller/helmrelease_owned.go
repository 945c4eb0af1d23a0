package controller

import (
	"context"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/release/common"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build/helm"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/report"
)

// AnnotationTakeOwnership on a HelmRelease lets it take objects of other releases.
const AnnotationTakeOwnership = "fleet.bowline.dev/take-ownership"

func takesOwnership(h *helmv2.HelmRelease) bool {
	return strings.EqualFold(h.Annotations[AnnotationTakeOwnership], "enabled")
}

// owned refuses to take objects of another release that is still there, unless the
// HelmRelease is annotated to; and where its spec says that nothing is to be taken over, also those
// of no release or of one that is gone.
func (r *helmReleaseRun) owned(ctx context.Context) (stepped, error) {
	m := r.memory
	action := m.record.Marks.Action
	takes := action == helmv2.ReleaseActionInstall || action == helmv2.ReleaseActionUpgrade
	strict := action == helmv2.ReleaseActionInstall && r.h.GetInstall().DisableTakeOwnership ||
		action == helmv2.ReleaseActionUpgrade && r.h.GetUpgrade().DisableTakeOwnership
	if m.owned || !takes || !strict && (takesOwnership(r.h) || !m.storage.watch.Strangers()) {
		return goOn(), nil
	}
	objects, err := r.placed(ctx, m.record.Release)
	if err != nil {
		return stepped{}, err
	}
	claim := release.Claim{Unit: r.unit(), Name: m.record.Name, Namespace: m.record.Namespace}
	if !strict {
		objects = append(objects, r.hookObjects(ctx, m.record)...)
		claim.Stands, claim.Waiver = r.stands, AnnotationTakeOwnership+": enabled"
	}
	claim.Objects = r.unknown(objects, strict)
	err = r.live().CheckOwnership(ctx, claim)
	m.owned = err == nil
	return goOn(), err
}

// unknown returns which of the objects have to be looked at: not those that the release
// has, and not those that another HelmRelease delivers, which the plan refuses.
func (r *helmReleaseRun) unknown(objects []*unstructured.Unstructured, all bool) []observe.Reference {
	have := map[object.ID]bool{}
	for _, e := range releaseEntries(r.h) {
		have[e.ID] = true
	}
	var refs []observe.Reference
	for _, o := range objects {
		id := object.IDOf(o)
		claimant, claimed := r.target.ledger.Claimant(id)
		if !have[id] && (all || !claimed || claimant == r.unit()) {
			refs = append(refs, observe.Reference{ID: id, Version: o.GroupVersionKind().Version})
		}
	}
	return refs
}

// hookObjects returns the objects of the hooks that the action runs. What cannot be read or
// is named by the server has nobody to take it from.
func (r *helmReleaseRun) hookObjects(ctx context.Context, record *release.Record) []*unstructured.Unstructured {
	events := hookEvents[record.Marks.Action]
	var all []*unstructured.Unstructured
	for _, h := range record.Hooks {
		if !slices.Contains(h.Events, events.before) && !slices.Contains(h.Events, events.after) {
			continue
		}
		objects, err := helm.Objects(h.Manifest)
		if err == nil && r.inNamespaces(ctx, objects, record.Namespace) == nil {
			all = append(all, objects...)
		}
	}
	return all
}

// stands reports whether a release, which objects name with the namespace that it is installed in,
// has a record in Helm's storage that does not say that it was uninstalled. Helm keeps it in that
// namespace, and a HelmRelease where it says.
func (r *helmReleaseRun) stands(ctx context.Context, name, namespace string) (bool, error) {
	storages := []string{namespace}
	var list helmv2.HelmReleaseList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	for i := range list.Items {
		h := &list.Items[i]
		if h.GetReleaseNamespace() == namespace && release.ShortName(h.GetReleaseName()) == name && !slices.Contains(storages, h.GetStorageNamespace()) {
			storages = append(storages, h.GetStorageNamespace())
		}
	}
	for _, storage := range storages {
		store, err := release.NewStore(r.target.Cluster, storage, r.memory.storage.watch)
		if err != nil {
			return false, err
		}
		seen, err := store.Revisions(ctx, name)
		if err != nil || len(seen) > 0 && seen[0].Status != common.StatusUninstalled {
			return true, err
		}
	}
	return false, nil
}

// permitted forgets the failures of a release that was refused for want of the permission
// which it has now: an annotation makes no new generation, which else is what does so.
func (r *helmReleaseRun) permitted() {
	c := report.Condition(r.h, helmv2.ReleasedCondition)
	if c != nil && c.Status == metav1.ConditionFalse && takesOwnership(r.h) && strings.Contains(c.Message, AnnotationTakeOwnership) {
		r.h.Status.ClearFailures()
	}
}
