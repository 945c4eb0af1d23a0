package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// hasConfig reports whether a ConfigMap is there.
func (s *stage) hasConfig(name string) bool {
	s.Helper()
	return s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, &corev1.ConfigMap{}) == nil
}

// The release, its storage and its objects are each in the namespace that is asked for.
func TestReleaseNamespaces(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	target, storage := s.namespace+"-target", s.namespace+"-storage"
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: storage}})
	t.Cleanup(func() {
		for _, ns := range []string{target, storage} {
			_ = s.client.Delete(s.background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
		}
	})
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.TargetNamespace, h.Spec.StorageNamespace = target, storage
		h.Spec.Install = &helmv2.Install{CreateNamespace: true}
		h.Spec.PersistentClient = ptr.To(false)
	})
	ready := s.awaitReleased("web", 1)
	name := target + "-web"
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: target}}
	s.read(m)
	s.read(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sh.helm.release.v1." + name + ".v1", Namespace: storage}})
	if ready.Status.StorageNamespace != storage || ready.Status.History[0].Namespace != target {
		t.Errorf("status %+v", ready.Status)
	}
	s.delete(h)
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(m), m); err == nil {
		t.Error("it is still there")
	}
}

// Everything is done in the name of the account, the storage included.
func TestReleaseServiceAccount(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	s.account("tenant")
	s.release("web", func(h *helmv2.HelmRelease) { h.Spec.ServiceAccountName = "tenant" })
	s.awaitReleaseFailure("web", helmv2.InstallFailedReason, "system:serviceaccount:"+s.namespace+":tenant", "secrets")
	s.grant("tenant", "secrets", "*")
	s.awaitReleased("web", 1)
	s.release("nobody", func(h *helmv2.HelmRelease) { h.Spec.ServiceAccountName = "nobody" })
	s.awaitReleaseFailure("nobody", meta.ReconciliationFailedReason, "ServiceAccount "+s.namespace+"/nobody: not found")
}

func TestReleaseKubeConfig(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	s.remoteSecret("remote", f.config)
	s.charts(chart("1.0.0", nil))
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "remote"}}
		h.Spec.DriftDetection = &helmv2.DriftDetection{Mode: helmv2.DriftDetectionEnabled}
	})
	s.awaitReleased("web", 1)
	there := func() bool {
		_, err := f.CoreV1().ConfigMaps(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil
	}
	if !there() || s.hasConfig("web") {
		t.Errorf("there: %v, here: %v", there(), s.hasConfig("web"))
	}
	if err := f.CoreV1().ConfigMaps(s.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.poll("healed", there)
	s.delete(h)
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	s.poll("removed", func() bool { return !there() })
}

func chartDefinition(group string, more string) string {
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.%[1]s%[2]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {kind: Thing, plural: things}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`, group, more)
}

// Definitions in the chart's own folder are installed as the policies say, and never removed.
func TestReleaseDefinitions(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	group := s.namespace + ".test"
	c := chart("1.0.0", map[string]string{
		"crds/things.yaml":     chartDefinition(group, ""),
		"templates/thing.yaml": "apiVersion: " + group + "/v1\nkind: Thing\nmetadata: {name: \"{{ .Release.Name }}\"}\n",
	})
	s.charts(c)
	crd := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}}
	crd.SetName("things." + group)
	t.Cleanup(func() { _ = s.client.Delete(s.background(), crd) })
	s.release("none", func(h *helmv2.HelmRelease) { h.Spec.Install = &helmv2.Install{CRDs: helmv2.Skip} })
	s.awaitReleaseFailure("none", helmv2.InstallFailedReason, "Thing", "spec.install.crds is Create")
	h := s.release("web")
	ready := s.awaitReleased("web", 1)
	if !slices.ContainsFunc(ready.Status.Inventory.Entries, func(e helmv2.ResourceRef) bool { return strings.Contains(e.ID, crd.GetName()) }) {
		t.Errorf("inventory %v", ready.Status.Inventory.Entries)
	}
	c.Files["crds/things.yaml"] = chartDefinition(group, ", labels: {new: \"yes\"}")
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.Upgrade = &helmv2.Upgrade{CRDs: helmv2.CreateReplace} })
	s.push(c.In("charts"))
	s.awaitReleased("web", 2)
	s.read(crd)
	if crd.GetLabels()["new"] != "yes" {
		t.Errorf("labels %v", crd.GetLabels())
	}
	s.delete(h)
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	s.read(crd)
	if crd.GetDeletionTimestamp() != nil {
		t.Error("the definition went with the release")
	}
}

// What the fields of install and upgrade turn off is off.
func TestReleaseActionFields(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{
		"templates/hook.yaml": hook("hook", "pre-install,pre-upgrade,post-install,post-upgrade,pre-rollback"),
		"values.schema.json":  `{"properties":{"value":{"type":"string"}}}`,
	}
	for name, content := range waiting {
		files[name] = content
	}
	s.charts(chart("1.0.0", files))
	hung := withValues(map[string]any{"replicas": 1, "tag": "does-not-exist", "value": 7})
	s.release("hasty", hung, func(h *helmv2.HelmRelease) {
		h.Spec.Install = &helmv2.Install{
			DisableHooks: true, DisableWait: true, DisableWaitForJobs: true, DisableSchemaValidation: true, DisableOpenAPIValidation: true,
			Replace: true, ServerSideApply: ptr.To(true), Timeout: &metav1.Duration{Duration: 20 * time.Second},
		}
		h.Spec.Upgrade = &helmv2.Upgrade{
			DisableHooks: true, DisableWait: true, DisableWaitForJobs: true, DisableSchemaValidation: true, DisableOpenAPIValidation: true,
			Force: true, PreserveValues: true, ServerSideApply: helmv2.ServerSideApplyAuto, Timeout: &metav1.Duration{Duration: 20 * time.Second},
		}
		h.Spec.WaitStrategy = &helmv2.WaitStrategy{Name: helmv2.WaitStrategyPoller}
	})
	h := s.awaitReleased("hasty", 1)
	edit(s, h, withValues(map[string]any{"value": 8}))
	h = s.awaitReleased("hasty", 2)
	if s.hasConfig("hasty-hook") {
		t.Error("a hook ran")
	}
	if got := s.helmValues("hasty"); got["tag"] != "does-not-exist" || fmt.Sprint(got["value"]) != "8" {
		t.Errorf("the values of before were not kept: %v", got)
	}
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "strict", Namespace: s.namespace}})
	s.release("strict", func(h *helmv2.HelmRelease) { h.Spec.Install = &helmv2.Install{DisableTakeOwnership: true} })
	s.awaitReleaseFailure("strict", helmv2.InstallFailedReason, "ConfigMap/"+s.namespace+"/strict", "disableTakeOwnership")
	_ = h
}

// helmValues returns the values of the newest revision.
func (s *stage) helmValues(name string) map[string]any {
	s.Helper()
	last, err := s.storage().Last(s.Context(), name)
	if err != nil {
		s.Fatal(err)
	}
	return last.Config
}

// A failed action may be retried instead of being remediated, after its interval.
func TestReleaseRetries(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", refusing))
	s.release("web", withValues(map[string]any{"broken": true}), func(h *helmv2.HelmRelease) {
		h.Spec.Install = &helmv2.Install{Strategy: &helmv2.InstallStrategy{
			Name: string(helmv2.ActionStrategyRetryOnFailure), RetryInterval: &metav1.Duration{Duration: time.Second},
		}}
		h.Spec.Upgrade = &helmv2.Upgrade{Strategy: &helmv2.UpgradeStrategy{
			Name: string(helmv2.ActionStrategyRetryOnFailure), RetryInterval: &metav1.Duration{Duration: time.Second},
		}}
	})
	s.awaitRelease("web", "retried", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.ReconcilingCondition) == "True ProgressingWithRetry" && h.Status.Failures >= 2
	})
	if got := s.revisions("web"); len(got) < 2 || !strings.HasSuffix(got[0], "failed") {
		t.Errorf("revisions %v", got)
	}
}

// An install that fails is uninstalled and tried again, as often as is asked for.
func TestReleaseInstallRemediation(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", refusing))
	s.release("web", withValues(map[string]any{"broken": true}), func(h *helmv2.HelmRelease) {
		h.Spec.Install = &helmv2.Install{Remediation: &helmv2.InstallRemediation{Retries: 1, RemediateLastFailure: ptr.To(true), IgnoreTestFailures: ptr.To(true)}}
	})
	last := s.awaitRelease("web", "out of retries", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.StalledCondition) == "True RetriesExceeded"
	})
	if last.Status.InstallFailures != 2 || condition(last, helmv2.RemediatedCondition) != "True UninstallSucceeded" || s.hasConfig("web") {
		t.Errorf("%d failures: %s", last.Status.InstallFailures, standingOf(last))
	}
	edit(s, last, func(h *helmv2.HelmRelease) {
		h.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "again", helmv2.ResetRequestAnnotation: "again"}
	})
	s.awaitRelease("web", "reset", func(h *helmv2.HelmRelease) bool {
		return h.Status.LastHandledResetAt == "again" && h.Status.InstallFailures == 2 && condition(h, meta.StalledCondition) == "True RetriesExceeded"
	})
}

// Tests may fail without harm, be chosen, and bring a rollback about.
func TestReleaseTests(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	bad := "{{ if .Values.bad }}\n" + strings.ReplaceAll(hook("bad", "test"), "{{ .Release.Name }}-bad", "NOT_A_NAME") + "{{ end }}\n"
	s.charts(chart("1.0.0", map[string]string{"templates/good.yaml": hook("good", "test"), "templates/bad.yaml": bad}))
	tests := func(t helmv2.Test) func(*helmv2.HelmRelease) {
		return func(h *helmv2.HelmRelease) { t.Enable = true; h.Spec.Test = &t }
	}
	failing := withValues(map[string]any{"bad": true})
	s.release("ignored", failing, tests(helmv2.Test{IgnoreFailures: true, Timeout: &metav1.Duration{Duration: 20 * time.Second}}))
	s.release("chosen", failing, tests(helmv2.Test{Filters: &[]helmv2.Filter{{Name: "NOT_A_NAME", Exclude: true}}}))
	remediated := s.release("remediated", tests(helmv2.Test{}), retries(0, helmv2.RollbackRemediationStrategy), func(h *helmv2.HelmRelease) {
		h.Spec.Upgrade.Remediation.RemediateLastFailure = ptr.To(true)
	})
	ignored := s.awaitRelease("ignored", "tested", func(h *helmv2.HelmRelease) bool {
		return condition(h, helmv2.TestSuccessCondition) == "False TestFailed"
	})
	if got := condition(ignored, meta.ReadyCondition); got != "True InstallSucceeded" {
		t.Errorf("Ready is %s", got)
	}
	s.awaitRelease("chosen", "tested", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.ReadyCondition) == "True TestSucceeded"
	})
	s.awaitRelease("remediated", "tested", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.ReadyCondition) == "True TestSucceeded"
	})
	edit(s, remediated, failing)
	s.awaitRelease("remediated", "rolled back", func(h *helmv2.HelmRelease) bool {
		return condition(h, helmv2.RemediatedCondition) == "True RollbackSucceeded"
	})
}

// What drift detection is to ignore is left to others: fields, or objects as a whole.
func TestReleaseDriftIgnore(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", map[string]string{
		"templates/whole.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: whole}\ndata: {value: ours}\n",
		"templates/marked.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: marked, annotations: {" + helmv2.DriftDetectionMetadataKey +
			": disabled}}\ndata: {value: ours}\n",
		"templates/part.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: part}\ndata: {value: ours, other: ours}\n",
	}))
	s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.DriftDetection = &helmv2.DriftDetection{Mode: helmv2.DriftDetectionEnabled, Ignore: []helmv2.IgnoreRule{
			{Paths: []string{""}, Target: &kustomize.Selector{Name: "whole"}},
			{Paths: []string{"/data/value"}, Target: &kustomize.Selector{Kind: "ConfigMap", Name: "part"}},
		}}
	})
	h := s.awaitReleased("web", 1)
	for _, name := range []string{"whole", "marked", "part"} {
		edit(s, s.config(name), func(m *corev1.ConfigMap) { m.Data["value"] = "theirs" })
	}
	edit(s, s.config("part"), func(m *corev1.ConfigMap) { m.Data["other"] = "theirs" })
	s.poll("healed as far as it may be", func() bool { return s.config("part").Data["other"] == "ours" })
	for _, name := range []string{"whole", "marked", "part"} {
		if got := s.config(name).Data["value"]; got != "theirs" {
			t.Errorf("%s was healed to %q", name, got)
		}
	}
	edit(s, h, withValues(map[string]any{"value": "two"}))
	s.awaitReleased("web", 2)
	for name, want := range map[string]string{"whole": "ours", "marked": "ours", "part": "theirs"} {
		if got := s.config(name).Data["value"]; got != want {
			t.Errorf("after an upgrade %s is %q, want %q", name, got, want)
		}
	}
}

// Post renderers and common metadata are part of what is released.
func TestReleasePostRenderers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.CommonMetadata = &helmv2.CommonMetadata{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "b"}}
		h.Spec.PostRenderStrategy = helmv2.PostRenderStrategyNoHooks
		h.Spec.PostRenderers = []helmv2.PostRenderer{{Kustomize: &helmv2.Kustomize{Patches: []kustomize.Patch{{
			Target: &kustomize.Selector{Kind: "ConfigMap"}, Patch: "- {op: add, path: /data/patched, value: \"yes\"}",
		}}}}}
	})
	ready := s.awaitReleased("web", 1)
	m := s.config("web")
	if m.Labels["team"] != "a" || m.Annotations["note"] != "b" || m.Data["patched"] != "yes" {
		t.Errorf("%+v %v", m.ObjectMeta, m.Data)
	}
	if ready.Status.ObservedPostRenderersDigest == "" || ready.Status.ObservedCommonMetadataDigest == "" {
		t.Errorf("status %+v", ready.Status)
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.PostRenderers = nil })
	s.awaitReleased("web", 2)
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.CommonMetadata = nil })
	s.awaitReleased("web", 3)
	if m := s.config("web"); m.Labels["team"] != "" || m.Data["patched"] != "" {
		t.Errorf("%+v %v", m.ObjectMeta, m.Data)
	}
}

func TestReleaseHealthCheckExprs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{{
			APIVersion: "v1", Kind: "ConfigMap", HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: "has(data.value) && data.value == 'good'"},
		}}
	})
	s.awaitRelease("web", "under way", func(h *helmv2.HelmRelease) bool { return condition(h, meta.ReadyCondition) == "Unknown Progressing" })
	edit(s, s.helmRelease("web"), withValues(map[string]any{"value": "good"}))
	s.awaitRelease("web", "ready", func(h *helmv2.HelmRelease) bool { return report.IsReady(h, h.Status.ObservedGeneration) })
	s.release("wrong", func(h *helmv2.HelmRelease) {
		h.Spec.HealthCheckExprs = []kustomize.CustomHealthCheck{{
			APIVersion: "v1", Kind: "ConfigMap", HealthCheckExpressions: kustomize.HealthCheckExpressions{Current: "=="},
		}}
	})
	s.awaitReleaseFailure("wrong", meta.InvalidCELExpressionReason)
}

// An upgrade that fails takes back what it brought, where that is asked for.
func TestReleaseCleansUp(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c := chart("1.0.0", refusing)
	s.charts(c)
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.Upgrade = &helmv2.Upgrade{CleanupOnFail: true, ChartNameChangeStrategy: helmv2.ChartNameChangeStrategyInPlaceUpdate}
		h.Spec.Rollback = &helmv2.Rollback{CleanupOnFail: true, DisableHooks: true, DisableWait: true, DisableWaitForJobs: true, Force: true,
			ServerSideApply: helmv2.ServerSideApplyAuto, Timeout: &metav1.Duration{Duration: 20 * time.Second}}
		h.Spec.Uninstall = &helmv2.Uninstall{DisableHooks: true, DisableWait: true, DeletionPropagation: ptr.To("foreground"), Timeout: &metav1.Duration{Duration: 20 * time.Second}}
	})
	s.awaitReleased("web", 1)
	c.Files["templates/new.yaml"] = configMap("new", "1")
	edit(s, h, withValues(map[string]any{"broken": true}))
	s.awaitReleaseFailure("web", helmv2.UpgradeFailedReason)
	s.push(c.In("charts"))
	s.awaitRelease("web", "failed again", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.ReadyCondition) == "False UpgradeFailed" && h.Status.History.Latest().Version == 3
	})
	if s.hasConfig("new") {
		t.Error("what was new is still there")
	}
	s.delete(h)
	s.awaitGone(h, &helmv2.HelmReleaseList{})
}

// Objects that take others with them are deleted by an upgrade only with approval.
func TestReleaseDeletionBudget(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c := chart("1.0.0", map[string]string{
		"templates/claim.yaml": "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim}\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Mi}}}\n",
	})
	s.charts(c)
	h := s.release("web", func(h *helmv2.HelmRelease) {
		h.Spec.Install, h.Spec.Upgrade = &helmv2.Install{DisableWait: true}, &helmv2.Upgrade{DisableWait: true}
	})
	s.awaitReleased("web", 1)
	s.repo.Delete("charts/web/templates/claim.yaml")
	delete(c.Files, "templates/claim.yaml")
	s.push(c.In("charts"))
	held := s.awaitReleaseFailure("web", report.ReasonApprovalRequired, "PersistentVolumeClaim/"+s.namespace+"/claim", "bowline approve helmrelease web")
	_, plan, _ := strings.Cut(report.Condition(held, meta.ReadyCondition).Message, "--plan ")
	edit(s, h, func(h *helmv2.HelmRelease) {
		h.Annotations = map[string]string{AnnotationApprovedPlan: strings.TrimSpace(plan)}
	})
	s.awaitReleased("web", 2)
}
