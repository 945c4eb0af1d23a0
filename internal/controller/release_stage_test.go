package controller

import (
	"encoding/json"
	"maps"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// chart is a chart with one ConfigMap that holds .Values.value.
func chart(version string, more map[string]string) testkit.Chart {
	files := map[string]string{
		"values.yaml":           "value: one\n",
		"templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  value: {{ .Values.value | quote }}\n",
	}
	maps.Copy(files, more)
	return testkit.Chart{Name: "web", Version: version, Files: files}
}

// charts makes the repository with a chart, and an artifact of it that HelmReleases refer
// to by the name "web".
func (s *stage) charts(c testkit.Chart) {
	s.Helper()
	s.repo.Commit(c.In("charts"))
	s.source()
	s.generator("charts", func(g *swapi.ArtifactGeneratorSpec) {
		g.OutputArtifacts = []swapi.OutputArtifact{part("web", "charts/web")}
	})
}

// release makes a HelmRelease of the chart "web", which never comes back by itself.
func (s *stage) release(name string, change ...func(*helmv2.HelmRelease)) *helmv2.HelmRelease {
	s.Helper()
	h := &helmv2.HelmRelease{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace},
		Spec: helmv2.HelmReleaseSpec{
			ChartRef: &helmv2.CrossNamespaceSourceReference{Kind: sourcev1.ExternalArtifactKind, Name: "web"},
			Interval: metav1.Duration{Duration: never}, Timeout: &metav1.Duration{Duration: lasting},
		},
	}
	for _, c := range change {
		c(h)
	}
	s.create(h)
	return h
}

// withValues sets the values of a HelmRelease.
func withValues(v map[string]any) func(*helmv2.HelmRelease) {
	return func(h *helmv2.HelmRelease) {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		h.Spec.Values = &apiextensionsv1.JSON{Raw: raw}
	}
}

func (s *stage) awaitRelease(name, what string, ok func(*helmv2.HelmRelease) bool) *helmv2.HelmRelease {
	s.Helper()
	return await(s, &helmv2.HelmReleaseList{}, name, what, ok)
}

// awaitReleased waits until the newest generation is ready, at this revision in the history.
func (s *stage) awaitReleased(name string, version int) *helmv2.HelmRelease {
	s.Helper()
	return s.awaitRelease(name, "ready", func(h *helmv2.HelmRelease) bool {
		return report.IsReady(h, h.Status.ObservedGeneration) && h.Status.History.Latest() != nil && h.Status.History.Latest().Version == version
	})
}

func (s *stage) awaitReleaseFailure(name, reason string, words ...string) *helmv2.HelmRelease {
	s.Helper()
	return s.awaitRelease(name, "not ready: "+reason, func(h *helmv2.HelmRelease) bool {
		return says(h, metav1.ConditionFalse, reason, words...)
	})
}

func TestReleases(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web")
	first := s.awaitReleased("web", 1)
	if got := s.config("web").Data["value"]; got != "one" {
		t.Errorf("the value is %q", got)
	}
	if c := report.Condition(first, helmv2.ReleasedCondition); c == nil || c.Reason != helmv2.InstallSucceededReason {
		t.Errorf("conditions: %s", standingOf(first))
	}
	edit(s, h, withValues(map[string]any{"value": "two"}))
	second := s.awaitReleased("web", 2)
	if got := s.config("web").Data["value"]; got != "two" {
		t.Errorf("the value is %q", got)
	}
	if len(second.Status.History) != 2 || second.Status.History[1].Status != "superseded" {
		t.Errorf("history %+v", second.Status.History)
	}
	m := s.config("web")
	if err := s.client.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(m), m); err == nil {
		t.Error("what was released is still there")
	}
}
