package controller

import (
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/release"
)

// The status says what tools read from it.
func TestReleaseStatus(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	s.release("web")
	h := s.awaitReleased("web", 1)
	st := h.Status
	last, err := s.storage().Last(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if !release.Verified(st.History[0], last.Release) {
		t.Errorf("the digest is not that of the revision: %+v", st.History[0])
	}
	if st.ObservedGeneration != h.Generation || st.LastAttemptedGeneration != h.Generation || st.LastAttemptedReleaseAction != helmv2.ReleaseActionInstall ||
		st.LastAttemptedReleaseActionDuration == nil || st.LastAttemptedConfigDigest == "" ||
		!strings.Contains(st.LastAttemptedRevisionDigest, "sha256:") || !strings.HasPrefix(st.LastAttemptedRevision, "1.0.0+") {
		t.Errorf("status %+v", st)
	}
	if st.History[0].Action != helmv2.ReleaseActionInstall || st.History[0].Status != "deployed" || st.History[0].OCIDigest != st.LastAttemptedRevisionDigest {
		t.Errorf("history %+v", st.History[0])
	}
	for kind, want := range map[string]string{
		meta.ReadyCondition: "True InstallSucceeded", helmv2.ReleasedCondition: "True InstallSucceeded", meta.ReconcilingCondition: "", meta.StalledCondition: "",
	} {
		if got := condition(h, kind); got != want {
			t.Errorf("%s is %q, want %q", kind, got, want)
		}
	}
}

// A tenant refers to its own namespace only.
func TestReleaseAdmission(t *testing.T) {
	t.Parallel()
	locked := Tenancy{}
	for _, row := range []struct {
		name, reason string
		change       func(*helmv2.HelmRelease)
		field        string
	}{
		{"own", "all of it is its own", func(*helmv2.HelmRelease) {}, ""},
		{"chartRef", "a chart of another namespace", func(h *helmv2.HelmRelease) { h.Spec.ChartRef.Namespace = "other" }, "spec.chartRef"},
		{"chart", "a source of another namespace", func(h *helmv2.HelmRelease) {
			h.Spec.ChartRef = nil
			h.Spec.Chart = &helmv2.HelmChartTemplate{Spec: helmv2.HelmChartTemplateSpec{SourceRef: helmv2.CrossNamespaceObjectReference{Namespace: "other"}}}
		}, "spec.chart.spec.sourceRef"},
		{"dependsOn", "a dependency of another namespace", func(h *helmv2.HelmRelease) {
			h.Spec.DependsOn = []meta.DependencyReference{{Name: "a", Namespace: "other"}}
		}, "spec.dependsOn[0]"},
		{"storage", "a storage in another namespace", func(h *helmv2.HelmRelease) { h.Spec.StorageNamespace = "other" }, "spec.storageNamespace"},
		{"values", "a name that is none", func(h *helmv2.HelmRelease) {
			h.Spec.ValuesFrom = []helmv2.ValuesReference{{Kind: "Secret", Name: "../a"}}
		}, "spec.valuesFrom[0].name"},
		{"kind", "a kind that holds no charts", func(h *helmv2.HelmRelease) { h.Spec.ChartRef.Kind = "Bucket" }, "spec.chartRef.kind"},
		{"none", "no chart at all", func(h *helmv2.HelmRelease) { h.Spec.ChartRef = nil }, "spec.chart"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := &helmv2.HelmRelease{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "tenant"}}
			h.Spec.ChartRef = &helmv2.CrossNamespaceSourceReference{Kind: sourcev1.HelmChartKind, Name: "web"}
			row.change(h)
			err := locked.AdmitRelease(h)
			if (err == nil) != (row.field == "") || err != nil && !strings.Contains(err.Error(), row.field) {
				t.Errorf("%s: %v", row.reason, err)
			}
		})
	}
}
