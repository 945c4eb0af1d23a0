package controller

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

// fromTemplate takes the chart of a HelmRelease from the HelmRepository "charts".
func fromTemplate(version string) func(*helmv2.HelmRelease) {
	return func(h *helmv2.HelmRelease) {
		h.Spec.ChartRef = nil
		h.Spec.Chart = &helmv2.HelmChartTemplate{Spec: helmv2.HelmChartTemplateSpec{
			Chart: "web", Version: version, SourceRef: helmv2.CrossNamespaceObjectReference{Kind: sourcev1.HelmRepositoryKind, Name: "charts"},
			Interval: &metav1.Duration{Duration: never},
		}}
	}
}

// repository serves charts over HTTP, as the HelmRepository "charts".
func (s *stage) repository(charts ...testkit.Chart) *charttest.Server {
	s.Helper()
	server := charttest.NewServer(s.T, charts)
	s.create(&sourcev1.HelmRepository{
		ObjectMeta: metav1.ObjectMeta{Name: "charts", Namespace: s.namespace},
		Spec:       sourcev1.HelmRepositorySpec{URL: server.URL(), Interval: metav1.Duration{Duration: never}},
	})
	return server
}

// The HelmChart of a template is made, follows the template, and goes with it.
func TestReleaseChartTemplate(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	next := chart("1.1.0", nil)
	next.Files["values-more.yaml"] = "value: more\n"
	s.repository(chart("1.0.0", nil), next)
	h := s.release("web", fromTemplate("1.0.0"), func(h *helmv2.HelmRelease) {
		h.Spec.Chart.ObjectMeta = &helmv2.HelmChartTemplateObjectMeta{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "b"}}
	})
	first := s.awaitReleased("web", 1)
	name := s.namespace + "-web"
	if first.Status.HelmChart != s.namespace+"/"+name || first.Status.LastAttemptedRevision != "1.0.0" {
		t.Errorf("chart %q at %q", first.Status.HelmChart, first.Status.LastAttemptedRevision)
	}
	hc := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(hc)
	if hc.Labels["team"] != "a" || hc.Annotations["note"] != "b" || hc.Labels[object.HelmGroup+"/name"] != "web" {
		t.Errorf("labels %v, annotations %v", hc.Labels, hc.Annotations)
	}
	edit(s, h, func(h *helmv2.HelmRelease) {
		h.Spec.Chart.Spec.Version, h.Spec.Chart.Spec.ValuesFiles = "1.1.0", []string{"values-more.yaml"}
		h.Spec.Chart.ObjectMeta = nil
	})
	s.awaitReleased("web", 2)
	if got := s.config("web").Data["value"]; got != "more" {
		t.Errorf("the value is %q", got)
	}
	s.read(hc)
	if hc.Labels["team"] != "" || hc.Annotations["note"] != "" {
		t.Errorf("what the template no longer says stayed: %v %v", hc.Labels, hc.Annotations)
	}
	edit(s, hc, func(hc *sourcev1.HelmChart) { hc.Spec.Version = "1.0.0" })
	s.poll("put right", func() bool { s.read(hc); return hc.Spec.Version == "1.1.0" })
	edit(s, h, func(h *helmv2.HelmRelease) {
		h.Spec.Chart = nil
		h.Spec.ChartRef = &helmv2.CrossNamespaceSourceReference{Kind: sourcev1.HelmChartKind, Name: "missing"}
	})
	s.poll("removed", func() bool {
		return apierrors.IsNotFound(s.client.Get(t.Context(), client.ObjectKeyFromObject(hc), hc))
	})
	s.awaitReleaseFailure("web", reasonSourceNotReady, "missing")
}

// A chart that is not there says so, with what to do about it.
func TestReleaseMissingChart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repository(chart("1.0.0", nil))
	s.release("web", fromTemplate("9.x"))
	s.awaitReleaseFailure("web", reasonSourceNotReady, "9.x")
	s.release("nobody", func(h *helmv2.HelmRelease) { h.Spec.ChartRef.Name = "nobody" })
	s.awaitReleaseFailure("nobody", reasonSourceNotReady, "nobody", "spec.chartRef")
}

// helm runs Helm's own executable on the stage's cluster and namespace.
func (s *stage) helm(args ...string) string {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), testkit.Tool(s.T, "helm"), append(args, "--namespace", s.namespace, "--kubeconfig", testkit.Kubeconfig(s.T))...)
	cmd.Env = append(os.Environ(), "HOME="+s.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		s.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// A release that Helm installed is taken over as it is: no revision, no restart, labels only.
func TestReleaseTakesOverFromHelm(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c := chart("1.0.0", waiting)
	server := s.repository(c)
	s.helm("install", "web", "web", "--repo", server.URL(), "--version", "1.0.0", "--set", "value=theirs")
	before := s.config("web")
	h := s.release("web", fromTemplate("1.0.0"), withValues(map[string]any{"value": "theirs"}))
	taken := s.awaitReleased("web", 1)
	after := s.config("web")
	if before.UID != after.UID || after.Labels[object.HelmGroup+"/name"] != "web" || after.Data["value"] != "theirs" {
		t.Errorf("was %+v, is %+v", before.ObjectMeta, after.ObjectMeta)
	}
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 deployed"}) {
		t.Errorf("revisions %v", got)
	}
	if got := condition(taken, helmv2.ReleasedCondition); got != "True InstallSucceeded" {
		t.Errorf("Released is %s", got)
	}
	edit(s, h, withValues(map[string]any{"value": "ours"}))
	s.awaitReleased("web", 2)
	if got := s.config("web").Data["value"]; got != "ours" {
		t.Errorf("the value is %q", got)
	}
	for _, e := range s.config("web").ManagedFields {
		if e.Manager == "helm" {
			t.Error("the fields have two owners")
		}
	}
}

// Another version of what Helm installed is an upgrade of it.
func TestReleaseUpgradesWhatHelmInstalled(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	old, next := chart("1.0.0", map[string]string{"templates/old.yaml": configMap("old", "1")}), chart("1.1.0", nil)
	server := s.repository(old, next)
	s.helm("install", "web", "web", "--repo", server.URL(), "--version", "1.0.0")
	s.release("web", fromTemplate("1.1.0"))
	s.awaitReleased("web", 2)
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "old"}, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("what the new version lacks is still there: %v", err)
	}
}

// Helm's own executable sees an ordinary release, and what it does is noticed.
func TestReleaseSeenByHelm(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repository(chart("1.0.0", map[string]string{"templates/NOTES.txt": "hello {{ .Release.Name }}"}))
	h := s.release("web", fromTemplate("1.0.0"))
	s.awaitReleased("web", 1)
	edit(s, h, withValues(map[string]any{"value": "two"}))
	s.awaitReleased("web", 2)
	for _, row := range []struct{ command, want string }{
		{"list", "web"}, {"history web", "Upgrade complete"}, {"get values web", "value: two"}, {"get manifest web", "kind: ConfigMap"},
		{"get notes web", "hello web"}, {"status web", "STATUS: deployed"},
	} {
		if got := s.helm(strings.Fields(row.command)...); !strings.Contains(got, row.want) {
			t.Errorf("helm %s says %q", row.command, got)
		}
	}
	s.helm("rollback", "web", "1")
	back := s.awaitRelease("web", "put right", func(h *helmv2.HelmRelease) bool {
		return report.IsReady(h, h.Status.ObservedGeneration) && h.Status.History.Latest().Version == 4
	})
	if got := s.config("web").Data["value"]; got != "two" {
		t.Errorf("the value is %q: %s", got, standingOf(back))
	}
	s.helm("uninstall", "web", "--timeout", (20 * time.Second).String())
	s.poll("installed anew", func() bool {
		m := &corev1.ConfigMap{}
		there := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web"}, m) == nil && m.DeletionTimestamp == nil
		return there && slices.ContainsFunc(s.revisions("web"), func(r string) bool { return strings.HasSuffix(r, " deployed") })
	})
	s.awaitRelease("web", "ready", func(h *helmv2.HelmRelease) bool { return report.IsReady(h, h.Status.ObservedGeneration) })
}

// sharing is a chart that has a ConfigMap "shared" besides its own, with .Values.value.
func sharing(version string) testkit.Chart {
	return chart(version, map[string]string{
		"templates/shared.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: shared\ndata:\n  value: {{ .Values.value | quote }}\n",
	})
}

// What another release has is not taken, unless the HelmRelease is annotated to.
func TestReleaseSeizesNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := s.repository(sharing("1.0.0"))
	s.helm("install", "theirs", "web", "--repo", server.URL(), "--version", "1.0.0", "--set", "value=theirs")
	before := s.config("shared")
	h := s.release("web", fromTemplate("1.0.0"), withValues(map[string]any{"value": "ours"}))
	s.awaitReleaseFailure("web", helmv2.InstallFailedReason, "ConfigMap/"+s.namespace+"/shared (of release "+s.namespace+"/theirs)", AnnotationTakeOwnership+": enabled")
	after := s.config("shared")
	if before.ResourceVersion != after.ResourceVersion || s.hasConfig("web") {
		t.Errorf("it was changed: %+v", after)
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Annotations = map[string]string{AnnotationTakeOwnership: "enabled"} })
	s.awaitRelease("web", "released", func(h *helmv2.HelmRelease) bool { return report.IsReady(h, h.Status.ObservedGeneration) })
	if got := s.config("shared"); got.UID != before.UID || got.Data["value"] != "ours" || got.Annotations["meta.helm.sh/release-name"] != "web" {
		t.Errorf("it was not taken over: %+v", got)
	}
}

// What is of no release, or of one that is gone, is taken over.
func TestReleaseTakesWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := s.repository(sharing("1.0.0"))
	s.helm("install", "theirs", "web", "--repo", server.URL(), "--version", "1.0.0")
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: s.namespace}})
	left := s.config("shared")
	s.helm("uninstall", "theirs", "--keep-history")
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: s.namespace, Labels: left.Labels, Annotations: left.Annotations}})
	s.release("web", fromTemplate("1.0.0"))
	s.awaitReleased("web", 1)
	if got := s.config("shared").Annotations["meta.helm.sh/release-name"]; got != "web" {
		t.Errorf("it is of %q", got)
	}
}
