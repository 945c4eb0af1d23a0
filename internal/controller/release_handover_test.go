package controller

import (
	"maps"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/report"
)

// What moves between a HelmRelease and a Kustomization is not deleted by the one that gives
// it up, in whichever way that does.
func TestReleaseHandsOver(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		giveUp       func(*stage, *helmv2.HelmRelease, *kustomizev1.Kustomization)
		stays        bool
	}{
		{"an upgrade leaves it out", "pruning is for what nobody wants", func(s *stage, h *helmv2.HelmRelease, _ *kustomizev1.Kustomization) {
			edit(s, h, withValues(map[string]any{"without": true}))
			s.awaitReleased("web", 2)
		}, true},
		{"the release is uninstalled", "an uninstall takes what is of the release alone", func(s *stage, h *helmv2.HelmRelease, _ *kustomizev1.Kustomization) {
			s.delete(h)
			s.awaitGone(h, &helmv2.HelmReleaseList{})
		}, true},
		{"the Kustomization leaves it out", "the release has it", func(s *stage, _ *helmv2.HelmRelease, _ *kustomizev1.Kustomization) {
			s.awaitLive("unit", s.remove("unit/shared.yaml"))
		}, true},
		{"the Kustomization is deleted", "the release has it", func(s *stage, _ *helmv2.HelmRelease, k *kustomizev1.Kustomization) {
			s.delete(k)
			s.awaitGone(k, &kustomizev1.KustomizationList{})
		}, true},
		{"both give it up", "labels that were left behind keep nothing", func(s *stage, h *helmv2.HelmRelease, _ *kustomizev1.Kustomization) {
			edit(s, h, withValues(map[string]any{"without": true}))
			s.awaitReleased("web", 2)
			s.awaitLive("unit", s.remove("unit/shared.yaml"))
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			files := map[string]string{"unit/shared.yaml": configMap("shared", "1"), "unit/own.yaml": configMap("own", "1")}
			maps.Copy(files, chart("1.0.0", map[string]string{"templates/shared.yaml": "{{ if not .Values.without }}\n" + configMap("shared", "1") + "{{ end }}\n"}).In("charts"))
			s.repo.Commit(files)
			s.charts(chart("1.0.0", nil))
			k := s.unit("unit")
			s.awaitUnit("unit", "ready", func(k *kustomizev1.Kustomization) bool {
				return k.Status.Inventory != nil && len(k.Status.Inventory.Entries) == 2
			})
			h := s.release("web")
			s.awaitReleased("web", 1)
			uid := s.config("shared").UID
			row.giveUp(s, h, k)
			var now types.UID
			if s.hasConfig("shared") {
				now = s.config("shared").UID
			}
			if stays := now == uid; stays != row.stays {
				t.Errorf("it is there as it was: %v, although %s", stays, row.reason)
			}
		})
	}
}

// A hook makes no room for itself by deleting what another unit delivers.
func TestReleaseHookSpares(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"unit/shared.yaml": configMap("web-shared", "1")})
	s.charts(chart("1.0.0", map[string]string{"templates/hook.yaml": hook("shared", "pre-install")}))
	s.unit("unit")
	s.awaitUnit("unit", "ready", func(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Status.ObservedGeneration) })
	uid := s.config("web-shared").UID
	h := s.release("web")
	s.awaitReleaseFailure("web", helmv2.InstallFailedReason, "pre-install hook", "ConfigMap/"+s.namespace+"/web-shared is delivered by another unit", "rename the hook")
	if m := s.config("web-shared"); m.UID != uid || m.Data["value"] != "1" {
		t.Errorf("the hook took it: %v", m.Data)
	}
	s.delete(h)
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	if !s.hasConfig("web-shared") {
		t.Error("the uninstall took it")
	}
}
