package controller

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// Of two HelmReleases with one release the second is refused, and takes nothing with it.
func TestReleaseRivals(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	s.release("web")
	s.awaitReleased("web", 1)
	second := s.release("second", func(h *helmv2.HelmRelease) { h.Spec.ReleaseName = "web" }, withValues(map[string]any{"value": "second"}))
	s.awaitReleaseFailure("second", reasonStateError, "belongs to another HelmRelease, "+s.namespace+"/web", "spec.releaseName")
	s.delete(second)
	s.awaitGone(second, &helmv2.HelmReleaseList{})
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 deployed"}) || s.config("web").Data["value"] != "one" {
		t.Errorf("revisions %v", got)
	}
}

// Two HelmReleases whose HelmCharts would have one name do not write it by turns.
func TestReleaseChartRivals(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repository(chart("1.0.0", nil), chart("1.1.0", nil))
	other := s.namespace + "-a"
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}})
	t.Cleanup(func() {
		_ = s.client.Delete(s.background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}})
	})
	first := s.release("a-web", fromTemplate("1.0.0"))
	s.awaitReleased("a-web", 1)
	second := s.release("web", fromTemplate("1.1.0"), func(h *helmv2.HelmRelease) {
		h.Namespace, h.Spec.Chart.Spec.SourceRef.Namespace = other, s.namespace
	})
	s.poll("refused", func() bool {
		s.read(second)
		return says(second, metav1.ConditionFalse, helmv2.ArtifactFailedReason, "belongs to another HelmRelease, "+s.namespace+"/a-web")
	})
	hc := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: other + "-web", Namespace: s.namespace}}
	s.read(hc)
	if hc.Spec.Version != "1.0.0" {
		t.Errorf("the chart is of version %s", hc.Spec.Version)
	}
	s.delete(first)
	s.poll("released", func() bool { s.read(second); return report.IsReady(second, second.Status.ObservedGeneration) })
	s.delete(second)
	s.poll("gone", func() bool { return s.client.Get(s.Context(), client.ObjectKeyFromObject(second), second) != nil })
}

// What a revision installed that was overtaken at once is pruned by the next.
func TestReleaseOvertaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"templates/extra.yaml": "{{ if .Values.extra }}\n" + configMap("extra", "1") + "{{ end }}\n"}
	for name, content := range waiting {
		files[name] = content
	}
	s.charts(chart("1.0.0", files))
	h := s.release("web")
	s.awaitReleased("web", 1)
	edit(s, h, withValues(map[string]any{"extra": true, "replicas": 1, "tag": "does-not-exist"}))
	s.poll("installed", func() bool { return s.hasConfig("extra") })
	edit(s, h, withValues(map[string]any{"value": "two"}))
	s.awaitRelease("web", "released", func(h *helmv2.HelmRelease) bool {
		return report.IsReady(h, h.Generation) && h.Status.History.Latest().Version == 3
	})
	s.poll("pruned", func() bool { return !s.hasConfig("extra") })
}

// Cleaning up after a failed upgrade removes what it made, and not what it found.
func TestReleaseCleansUpItsOwn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"templates/more.yaml": "{{ if .Values.broken }}\n" + configMap("found", "1") + "---\n" + configMap("made", "1") + "{{ end }}\n"}
	for name, content := range refusing {
		files[name] = content
	}
	s.charts(chart("1.0.0", files))
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "found", Namespace: s.namespace}})
	h := s.release("web", func(h *helmv2.HelmRelease) { h.Spec.Upgrade = &helmv2.Upgrade{CleanupOnFail: true} })
	s.awaitReleased("web", 1)
	pass(time.Second) // the server tells times in seconds
	edit(s, h, withValues(map[string]any{"broken": true}))
	failed := s.awaitReleaseFailure("web", helmv2.UpgradeFailedReason)
	if !s.hasConfig("found") || s.hasConfig("made") {
		t.Errorf("found is there: %v, made is there: %v", s.hasConfig("found"), s.hasConfig("made"))
	}
	if got := s.config("found").Data["value"]; got != "1" {
		t.Errorf("it was not taken over: %q; inventory %v", got, failed.Status.Inventory)
	}
}

// Remediating a first install that failed removes what it made, and not what it found: that was
// somebody's before.
func TestReleaseInstallRemediationSpares(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"templates/more.yaml": configMap("found", "1") + "---\n" + configMap("made", "1")}
	maps.Copy(files, refusing)
	s.charts(chart("1.0.0", files))
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "found", Namespace: s.namespace}, Data: map[string]string{"own": "yes"}})
	uid := s.config("found").UID
	pass(time.Second) // the server tells times in seconds
	h := s.release("web", withValues(map[string]any{"broken": true}), func(h *helmv2.HelmRelease) {
		h.Spec.Install = &helmv2.Install{Remediation: &helmv2.InstallRemediation{Retries: 1, RemediateLastFailure: ptr.To(true)}}
	})
	s.awaitRelease("web", "out of retries", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.StalledCondition) == "True RetriesExceeded"
	})
	if s.hasConfig("made") || !s.hasConfig("found") {
		t.Fatalf("made is there: %v, found is there: %v", s.hasConfig("made"), s.hasConfig("found"))
	}
	if m := s.config("found"); m.UID != uid || m.Data["own"] != "yes" {
		t.Errorf("it was made anew: %v", m.Data)
	}
	edit(s, h, withValues(map[string]any{}))
	s.awaitReleased("web", 1)
	s.delete(h)
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	if s.hasConfig("found") {
		t.Error("uninstalling what was installed left it there")
	}
}

// A value that only the release before had from a Secret is in no message either.
func TestReleasePreservedSecrets(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", map[string]string{
		"templates/label.yaml": "{{ if .Values.show }}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: label, labels: {token: {{ .Values.token | quote }}}}\n{{ end }}\n",
	}))
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "values", Namespace: s.namespace}, StringData: map[string]string{"values.yaml": "token: not for all!\n"}})
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.ValuesFrom = []meta.ValuesReference{{Kind: "Secret", Name: "values"}}
		h.Spec.Upgrade = &helmv2.Upgrade{PreserveValues: true}
	})
	s.awaitReleased("web", 1)
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.ValuesFrom = nil; withValues(map[string]any{"show": true})(h) })
	failed := s.awaitReleaseFailure("web", helmv2.UpgradeFailedReason, "ConfigMap/"+s.namespace+"/label")
	if told := standingOf(failed); strings.Contains(told, "not for all") {
		t.Errorf("the value is told: %s", told)
	}
}
