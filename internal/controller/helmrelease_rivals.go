package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"helm.sh/helm/v4/pkg/release/common"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/release"
)

// errRival is wrapped by the refusal to work on what another HelmRelease works on: each would
// undo what the other does, as fast as they can.
var errRival = errors.New("belongs to another HelmRelease")

// rival refuses a release that another HelmRelease made last which is still there.
func (r *helmReleaseRun) rival(ctx context.Context, marks release.Marks, status common.Status, name string) error {
	namespace, other, _ := strings.Cut(marks.Unit, "/")
	key := types.NamespacedName{Namespace: namespace, Name: other}
	if marks.Unit == "" || key == r.unit() || status == common.StatusUninstalled {
		return nil
	}
	h, err := r.get(ctx, key)
	if apierrors.IsNotFound(err) {
		return nil // it was let go, and its release stayed
	}
	if err != nil {
		return err
	}
	latest := h.Status.History.Latest()
	if release.ShortName(h.GetReleaseName()) != name && (latest == nil || latest.Name != name) {
		return nil // it has another one now
	}
	return &failure.Error{Op: "work on", Kind: failure.Conflict, Object: "release " + name, Err: fmt.Errorf("it %w, %s", errRival, key),
		Remedy: "set another spec.releaseName in one of the two, or delete " + key.String() + ", suspended first if what it released is to stay"}
}

// chartRival refuses to write a HelmChart that is made from the template of another
// HelmRelease which is still there: the names of two namespaces can run together to one.
func (r *helmReleaseRun) chartRival(ctx context.Context, key types.NamespacedName) error {
	there := &sourcev1.HelmChart{}
	if err := r.client.Get(ctx, key, there); apierrors.IsNotFound(err) {
		if there = r.charts.noted(key); there == nil {
			return nil
		}
	} else if err != nil {
		return err
	}
	owner, ok := object.OwnerOf(there.GetLabels(), helmv2.GroupVersion.Group)
	name := types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name}
	if !ok || name == r.unit() {
		return nil
	}
	h, err := r.get(ctx, name)
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	if h.Spec.Chart == nil || templateKey(h) != key {
		return nil
	}
	return &failure.Error{Op: "write", Kind: failure.Conflict, Object: "HelmChart " + key.String(), Err: fmt.Errorf("it %w, %s", errRival, name),
		Remedy: "rename one of the two HelmReleases, or refer to a HelmChart with spec.chartRef"}
}
