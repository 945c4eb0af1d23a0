package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// refusing is a template that the API server refuses when .Values.broken is set.
var refusing = map[string]string{
	"templates/broken.yaml": "{{ if .Values.broken }}\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: NOT_A_NAME\n{{ end }}\n",
}

// waiting is a template of a workload that never becomes ready, as there are no nodes.
var waiting = map[string]string{
	"templates/deployment.yaml": `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas | default 0 }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "registry.test/web:{{ .Values.tag | default "1" }}"}]}
`,
}

func hook(name, event string, more ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-%s\n  annotations:\n    helm.sh/hook: %s\n%s", name, event, strings.Join(more, ""))
}

func condition(h *helmv2.HelmRelease, kind string) string {
	c := report.Condition(h, kind)
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason
}

// revisions returns the statuses of the revisions that the storage holds, by version.
func (s *stage) revisions(name string) []string {
	s.Helper()
	var list corev1.SecretList
	if err := s.client.List(s.Context(), &list, client.InNamespace(s.namespace), client.MatchingLabels{"owner": "helm", "name": name}); err != nil {
		s.Fatal(err)
	}
	var out []string
	for _, secret := range list.Items {
		out = append(out, secret.Labels["version"]+" "+secret.Labels["status"])
	}
	slices.Sort(out)
	return out
}

func retries(n int, strategy helmv2.RemediationStrategy) func(*helmv2.HelmRelease) {
	return func(h *helmv2.HelmRelease) {
		h.Spec.Upgrade = &helmv2.Upgrade{Remediation: &helmv2.UpgradeRemediation{Retries: n, Strategy: &strategy}}
	}
}

func TestReleaseRollsBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", refusing))
	h := s.release("web", retries(1, helmv2.RollbackRemediationStrategy))
	s.awaitReleased("web", 1)
	edit(s, h, withValues(map[string]any{"value": "two", "broken": true}))
	last := s.awaitRelease("web", "out of retries", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.StalledCondition) == "True RetriesExceeded"
	})
	if got := condition(last, meta.ReadyCondition); got != "False RollbackSucceeded" {
		t.Errorf("Ready is %s", got)
	}
	if last.Status.UpgradeFailures != 2 || last.Status.Failures != 2 {
		t.Errorf("%d and %d failures", last.Status.UpgradeFailures, last.Status.Failures)
	}
	if got := s.config("web").Data["value"]; got != "one" {
		t.Errorf("the value is %q", got)
	}
	want := []string{"1 superseded", "2 failed", "3 superseded", "4 failed", "5 deployed"}
	if got := s.revisions("web"); !slices.Equal(got, want) {
		t.Errorf("revisions %v, want %v", got, want)
	}
	edit(s, h, withValues(map[string]any{"value": "three"}))
	fixed := s.awaitReleased("web", 6)
	if fixed.Status.UpgradeFailures != 0 || condition(fixed, helmv2.RemediatedCondition) != "" || s.config("web").Data["value"] != "three" {
		t.Errorf("after the correction: %s", standingOf(fixed))
	}
}

func TestReleaseUninstallsWhatFailed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", refusing))
	h := s.release("web", retries(0, helmv2.UninstallRemediationStrategy), func(h *helmv2.HelmRelease) {
		h.Spec.Upgrade.Remediation.RemediateLastFailure = ptr.To(true)
	})
	s.awaitReleased("web", 1)
	edit(s, h, withValues(map[string]any{"value": "two", "broken": true}))
	s.awaitRelease("web", "uninstalled", func(h *helmv2.HelmRelease) bool {
		return strings.HasPrefix(condition(h, helmv2.ReleasedCondition), "False Install")
	})
	if got := s.revisions("web"); len(got) > 1 {
		t.Errorf("revisions %v", got)
	}
}

func TestReleaseFailsWithoutRetries(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", refusing))
	s.release("web", withValues(map[string]any{"broken": true}))
	h := s.awaitRelease("web", "out of retries", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.StalledCondition) == "True RetriesExceeded"
	})
	if got := condition(h, meta.ReadyCondition); got != "False InstallFailed" {
		t.Errorf("Ready is %s", got)
	}
	if c := report.Condition(h, meta.ReadyCondition); !strings.Contains(c.Message, "NOT_A_NAME") {
		t.Errorf("message %q", c.Message)
	}
	token := s.ask(h)
	s.awaitRelease("web", "asked", func(h *helmv2.HelmRelease) bool { return h.Status.LastHandledReconcileAt == token })
	if got := s.revisions("web"); !slices.Equal(got, []string{"1 failed"}) {
		t.Errorf("a request made it try again: %v", got)
	}
	edit(s, h, func(h *helmv2.HelmRelease) {
		withValues(map[string]any{"broken": false})(h)
	})
	s.awaitReleased("web", 2)
}

func TestReleaseUnhealthy(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", waiting))
	h := s.release("web", retries(1, helmv2.RollbackRemediationStrategy), func(h *helmv2.HelmRelease) {
		h.Spec.Upgrade.Remediation.Retries = 0
		h.Spec.Upgrade.Remediation.RemediateLastFailure = ptr.To(true)
		h.Spec.Upgrade.Timeout = &metav1.Duration{Duration: 5 * time.Second}
		h.Spec.Install, h.Spec.Rollback = &helmv2.Install{DisableWait: true}, &helmv2.Rollback{DisableWait: true}
	}, withValues(map[string]any{"replicas": 1, "tag": "does-not-exist"}))
	s.awaitReleased("web", 1)
	s.awaitPullFailure() // what the wait that runs out will find
	edit(s, h, withValues(map[string]any{"replicas": 1, "tag": "does-not-exist", "value": "two"}))
	last := s.awaitRelease("web", "rolled back", func(h *helmv2.HelmRelease) bool {
		return condition(h, helmv2.RemediatedCondition) == "True RollbackSucceeded"
	})
	c := report.Condition(last, helmv2.ReleasedCondition)
	if !strings.Contains(c.Message, "Deployment/"+s.namespace+"/web") || !strings.Contains(c.Message, "does-not-exist") {
		t.Errorf("the message does not name the workload: %q", c.Message)
	}
}

// awaitPullFailure waits until a pod says that its image cannot be had.
func (s *stage) awaitPullFailure() {
	s.Helper()
	s.poll("a pod without its image", func() bool {
		var pods corev1.PodList
		if err := s.client.List(s.Context(), &pods, client.InNamespace(s.namespace)); err != nil {
			s.Fatal(err)
		}
		return slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool {
			return slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Waiting != nil })
		})
	})
}

func TestReleaseHooks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", map[string]string{
		"templates/pre.yaml":  hook("pre", "pre-install"),
		"templates/post.yaml": hook("post", "post-install,post-upgrade", "    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded\n"),
		"templates/test.yaml": hook("test", "test"),
	}))
	s.release("web", func(h *helmv2.HelmRelease) { h.Spec.Test = &helmv2.Test{Enable: true} })
	h := s.awaitRelease("web", "tested", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.ReadyCondition) == "True TestSucceeded"
	})
	if len(h.Status.History[0].GetTestHooks()) != 1 {
		t.Errorf("history %+v", h.Status.History[0])
	}
	s.config("web-pre")
	s.config("web-test")
	if err := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web-post"}, &corev1.ConfigMap{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the hook that was to be deleted: %v", err)
	}
	edit(s, h, withValues(map[string]any{"value": "two"}))
	s.awaitRelease("web", "tested again", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.ReadyCondition) == "True TestSucceeded" && h.Status.History.Latest().Version == 2
	})
}

func TestReleaseDrift(t *testing.T) {
	t.Parallel()
	mode := func(m helmv2.DriftDetectionMode) func(*helmv2.HelmRelease) {
		return func(h *helmv2.HelmRelease) { h.Spec.DriftDetection = &helmv2.DriftDetection{Mode: m} }
	}
	t.Run("enabled", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		s.charts(chart("1.0.0", nil))
		h := s.release("web", mode(helmv2.DriftDetectionEnabled))
		s.awaitReleased("web", 1)
		edit(s, s.config("web"), func(m *corev1.ConfigMap) { m.Data["value"] = "theirs" })
		s.poll("healed", func() bool { return s.config("web").Data["value"] == "one" })
		if err := s.client.Delete(t.Context(), s.config("web")); err != nil {
			t.Fatal(err)
		}
		s.poll("made anew", func() bool {
			m := &corev1.ConfigMap{}
			return s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "web"}, m) == nil
		})
		if got := s.revisions("web"); !slices.Equal(got, []string{"1 deployed"}) {
			t.Errorf("healing made revisions: %v", got)
		}
		edit(s, h, mode(helmv2.DriftDetectionWarn))
		s.awaitRelease("web", "observed", func(h *helmv2.HelmRelease) bool { return h.Status.ObservedGeneration == h.Generation })
		edit(s, s.config("web"), func(m *corev1.ConfigMap) { m.Data["value"] = "theirs" })
		s.awaitRelease("web", "drifted", func(h *helmv2.HelmRelease) bool { return condition(h, helmv2.DriftedCondition) == "True DriftDetected" })
		if got := s.config("web").Data["value"]; got != "theirs" {
			t.Errorf("it is only to be told of, and was healed to %q", got)
		}
		edit(s, h, mode(helmv2.DriftDetectionDisabled))
		s.awaitRelease("web", "no longer looked at", func(h *helmv2.HelmRelease) bool { return condition(h, helmv2.DriftedCondition) == "" })
		edit(s, h, withValues(map[string]any{"value": "two"}))
		s.awaitReleased("web", 2)
		if got := s.config("web").Data["value"]; got != "two" {
			t.Errorf("after an upgrade it is %q", got)
		}
	})
}
